"""End-to-end latency: a webhook in, an exactly-once stream, an HTTP request out, at a fixed rate and with default settings.

Open loop: events leave at their times, whether or not earlier ones were answered, so that a stall is seen by all it delays. An
event carries the time when it was due, and the receiver takes the time of arrival: what is measured is the whole way, the queue
of a sender that is behind included. All on one machine and its one clock.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks import report, stand
from benchmarks.sender import KEY

RATES = (100, 1000)
SECONDS = 20
WARM_UP = 10

MANIFESTS = """
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: in-{rate}}}
spec:
  schema: {{type: record, name: Order, fields: [{{name: id, type: string}}, {{name: customer, type: string}}, {{name: due, type: double}}]}}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: out-{rate}}}
spec:
  schema: {{type: record, name: Order, fields: [{{name: id, type: string}}, {{name: customer, type: string}}, {{name: due, type: double}}]}}
---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: receiver}}
spec: {{connector: http, config: {{base_url: "http://127.0.0.1:{port}", http: {{allow_private: ["127.0.0.1"]}}}}}}
---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: orders-hook}}
spec:
  connector: webhook
  config: {{path: /hooks/orders, verify: {{provider: api_key, header: X-Key, secrets: ['${{env:LATENCY_KEY}}']}}}}
  to: [{{topic: in-{rate}, key: event.customer}}]
---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: orders-kept}}
spec:
  from: in-{rate}
  start: earliest
  processing: exactly-once
  steps: [{{filter: "event.customer != 'nobody'"}}, {{map: {{set: {{customer: "event.customer + '!'"}}}}}}]
  to: out-{rate}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: orders-post}}
spec:
  from: out-{rate}
  start: earliest
  connector: http
  connection: receiver
  config: {{method: POST, url: /, idempotent: true}}
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Latencies in milliseconds at one rate, and the CPU seconds an event took in all processes of ours."""

    rate: int
    p50: float
    p95: float
    p99: float
    sent: int
    worker_cpu: float
    broker_cpu: float


def measure(place: stand.Stand, rate: int, seconds: int = SECONDS) -> Measured:
    """One run at one rate; raises SystemExit when an event did not arrive."""
    port = stand.free_port()
    receiver = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.arrivals", str(port)], stdout=subprocess.PIPE, text=True
    )
    assert receiver.stdout is not None
    receiver.stdout.readline()
    try:
        with stand.worker(
            place, f"latency{rate}", MANIFESTS.format(port=port, rate=rate), env={"LATENCY_KEY": KEY}
        ) as worker:
            url = f"{worker.ingress}/hooks/orders"
            send(url, rate, WARM_UP)
            _arrived(port, rate * WARM_UP, forget=True)
            before, broker_before = stand.cpu_seconds(worker.pid), stand.cpu_seconds(place.broker_pid)
            send(url, rate, seconds)
            found = _arrived(port, rate * seconds)
            return Measured(
                rate,
                found["p50"],
                found["p95"],
                found["p99"],
                rate * seconds,
                stand.cpu_seconds(worker.pid) - before,
                stand.cpu_seconds(place.broker_pid) - broker_before,
            )
    finally:
        receiver.terminate()
        receiver.wait()


def send(url: str, rate: int, seconds: int) -> None:
    """Sends for some seconds from a process of its own; raises where an event was refused."""
    subprocess.run(
        [sys.executable, "-m", "benchmarks.sender", url, str(rate), str(seconds)], check=True, timeout=seconds + 60
    )


def _arrived(port: int, expected: int, *, forget: bool = False) -> dict[str, float]:
    """What the receiver saw, once everything is there."""
    url = f"http://127.0.0.1:{port}/?expected={expected}" + ("&forget=1" if forget else "")
    with urllib.request.urlopen(url, timeout=90) as answer:
        found: dict[str, float] = json.loads(answer.read())
    if found["distinct"] != expected:
        raise SystemExit(f"{found} of {expected} events")
    return found


def run(rates: Sequence[int] = RATES, seconds: int = SECONDS) -> list[str]:
    """Measures every rate on one broker, keeps the section, and returns the lines of its table."""
    with stand.stand() as place:
        found = [measure(place, rate, seconds) for rate in rates]
    rows = [
        {
            "events/s": one.rate,
            "p50, ms": round(one.p50, 1),
            "p95, ms": round(one.p95, 1),
            "p99, ms": round(one.p99, 1),
            "worker, CPU ms an event": round(1000 * one.worker_cpu / one.sent, 2),
            "broker, CPU ms an event": round(1000 * one.broker_cpu / one.sent, 2),
        }
        for one in found
    ]
    notes = [
        (
            f"Webhook in, exactly-once stream, HTTP out, default settings; {seconds} s a rate, open loop: an event's time begins when "
            "it was due to be sent. Sender, worker, broker and receiver share the machine."
        )
    ]
    report.add("Latency, webhook in to HTTP out", rows, notes, data=[asdict(one) for one in found])
    return report.table(rows)
