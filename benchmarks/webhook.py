"""Webhook requests a second, each answered after the broker acknowledged its event: a closed loop over some connections."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from benchmarks import report, stand
from benchmarks.sender import KEY, Line, head_of

CONNECTIONS = (1, 32, 256)
SECONDS = 8
WARM_UP = 3

MANIFESTS = """
apiVersion: trunkline/v1
kind: Topic
metadata: {name: orders}
spec: {schema: {type: record, name: Order, fields: [{name: id, type: string}, {name: customer, type: string}, {name: due, type: double}]}}
---
apiVersion: trunkline/v1
kind: Source
metadata: {name: orders-hook}
spec:
  connector: webhook
  config: {path: /hooks/orders, verify: {provider: api_key, header: X-Key, secrets: ['${env:WEBHOOK_KEY}']}}
  to: [{topic: orders, key: event.customer}]
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests accepted in `seconds` over so many connections, how long answers took in milliseconds, and CPU seconds."""

    connections: int
    requests: int
    seconds: float
    p50: float
    p99: float
    worker_cpu: float
    broker_cpu: float


class _Load:
    """Sends the next request of a connection when the last one was answered."""

    def __init__(self, url: str, seconds: float) -> None:
        self._head = head_of(url)
        self._until = time.monotonic() + seconds
        self._sent: dict[Line, float] = {}
        self._ended = asyncio.Event()
        self.taken: list[float] = []

    async def run(self, host: str, port: int, connections: int) -> None:
        """Sends over so many connections until the time is up."""
        loop = asyncio.get_running_loop()
        lines = [(await loop.create_connection(lambda: Line(self), host, port))[1] for _ in range(connections)]
        for line in lines:
            self._send(line)
        await self._ended.wait()

    def _send(self, line: Line) -> None:
        number = len(self.taken) + len(self._sent)
        body = json.dumps({"id": str(number), "customer": f"c{number % 1000}", "due": 0.0}).encode()
        self._sent[line] = time.monotonic()
        line.transport.write(self._head + str(len(body)).encode() + b"\r\n\r\n" + body)

    def answered(self, line: Line, status: int) -> None:
        """The next one, while there is time."""
        if status != 202:
            raise SystemExit(f"a request was answered {status}")
        now = time.monotonic()
        self.taken.append(now - self._sent.pop(line))
        if now < self._until:
            self._send(line)
        elif not self._sent:
            self._ended.set()

    def lost(self, error: Exception | None) -> None:
        """A connection that is lost in the middle ends the measurement."""
        if not self._ended.is_set():
            raise SystemExit(f"the connection was lost: {error}")


async def send(url: str, host: str, port: int, connections: int, seconds: float) -> None:
    """Prints how long each answer took, in milliseconds, as a list."""
    load = _Load(url, seconds)
    begun = time.monotonic()
    await load.run(host, port, connections)
    print(json.dumps({"seconds": time.monotonic() - begun, "taken": [round(1000 * one, 2) for one in load.taken]}))


def measure(place: stand.Stand, worker: stand.RunningWorker, connections: int) -> Measured:
    """One run over so many connections, after a warm-up."""
    host, _, port = worker.ingress.removeprefix("http://").partition(":")
    command = [
        sys.executable,
        "-m",
        "benchmarks.webhook",
        f"{worker.ingress}/hooks/orders",
        host,
        port,
        str(connections),
    ]
    subprocess.run([*command, str(WARM_UP)], check=True, stdout=subprocess.DEVNULL)
    before, broker_before = stand.cpu_seconds(worker.pid), stand.cpu_seconds(place.broker_pid)
    found = json.loads(subprocess.run([*command, str(SECONDS)], check=True, stdout=subprocess.PIPE).stdout)
    ordered = sorted(found["taken"])
    return Measured(
        connections,
        len(ordered),
        found["seconds"],
        ordered[len(ordered) // 2],
        ordered[len(ordered) * 99 // 100],
        stand.cpu_seconds(worker.pid) - before,
        stand.cpu_seconds(place.broker_pid) - broker_before,
    )


def run(rounds: int = 3) -> list[str]:
    """Measures every number of connections, keeps the section, and returns the lines of its table."""
    with stand.stand() as place, stand.worker(place, "webhook", MANIFESTS, env={"WEBHOOK_KEY": KEY}) as worker:
        found = [measure(place, worker, connections) for _ in range(rounds) for connections in CONNECTIONS]
    rows = []
    for connections in CONNECTIONS:
        own = [one for one in found if one.connections == connections]
        rows.append(
            {
                "connections": connections,
                "requests/s": round(statistics.median(one.requests / one.seconds for one in own)),
                "p50, ms": round(statistics.median(one.p50 for one in own), 1),
                "p99, ms": round(statistics.median(one.p99 for one in own), 1),
                "worker, CPU ms a request": round(
                    statistics.median(1000 * one.worker_cpu / one.requests for one in own), 2
                ),
                "broker, CPU ms a request": round(
                    statistics.median(1000 * one.broker_cpu / one.requests for one in own), 2
                ),
            }
        )
    notes = [
        (
            f"A closed loop: a connection sends its next request when the last one was answered, for {SECONDS} s; one worker, "
            "checked by an API key, each request answered 202 after the transaction with its event committed."
        )
    ]
    report.add("Webhook requests with broker acknowledgement", rows, notes, data=[asdict(one) for one in found])
    return report.table(rows)


if __name__ == "__main__":
    import uvloop

    uvloop.run(send(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
