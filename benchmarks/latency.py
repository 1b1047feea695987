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
from dataclasses import dataclass

from benchmarks import stand
from benchmarks.sender import KEY

RATES = (100, 1000)
SECONDS = 20
WARM_UP = 5

MANIFESTS = """
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: orders-in}}
spec:
  partitions: 4
  schema: {{type: record, name: Order, fields: [{{name: id, type: string}}, {{name: customer, type: string}}, {{name: due, type: double}}]}}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: orders-out}}
spec:
  partitions: 4
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
  to: [{{topic: orders-in, key: event.customer}}]
---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: orders-kept}}
spec:
  from: orders-in
  start: earliest
  processing: exactly-once
  steps: [{{filter: "event.customer != 'nobody'"}}, {{map: {{set: {{customer: "event.customer + '!'"}}}}}}]
  to: orders-out
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: orders-post}}
spec:
  from: orders-out
  start: earliest
  connector: http
  connection: receiver
  config: {{method: POST, url: /, idempotent: true}}
"""


@dataclass(frozen=True, slots=True)
class Measured:
    """Latencies in milliseconds at one rate, events a second that arrived, and the CPU seconds an event took in all processes of ours."""

    rate: int
    p50: float
    p95: float
    p99: float
    arrived: int
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
        with stand.worker(place, f"latency{rate}", MANIFESTS.format(port=port), env={"LATENCY_KEY": KEY}) as worker:
            url = f"{worker.ingress}/hooks/orders"
            _send(url, min(rate, 200), WARM_UP)
            _arrived(port, min(rate, 200) * WARM_UP, forget=True)
            before, broker_before = stand.cpu_seconds(worker.pid), stand.cpu_seconds(place.broker_pid)
            _send(url, rate, seconds)
            found = _arrived(port, rate * seconds)
            return Measured(
                rate,
                found["p50"],
                found["p95"],
                found["p99"],
                found["distinct"],
                rate * seconds,
                stand.cpu_seconds(worker.pid) - before,
                stand.cpu_seconds(place.broker_pid) - broker_before,
            )
    finally:
        receiver.terminate()
        receiver.wait()


def _send(url: str, rate: int, seconds: int) -> None:
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
