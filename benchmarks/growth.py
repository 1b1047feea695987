"""What growth costs: idle pipelines in one worker, partitions whose lag is collected, minutes of load, a broker's cold start."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks import stand

PIPELINES = (1, 10, 100)
PARTITIONS = (10, 100, 1000)
IDLE_SECONDS = 20.0
TOPICS = 10

TOPIC = """---
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: "{name}"}}
spec: {{partitions: 2, schema: {{type: record, name: Order, fields: [{{name: id, type: string}}, {{name: amount, type: double}}]}}}}
"""
CONNECTION = """---
apiVersion: trunkline/v1
kind: Connection
metadata: {name: away}
spec: {connector: http, config: {base_url: "http://127.0.0.1:9", http: {allow_private: ["127.0.0.1"]}}}
"""
KINDS = (
    """---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: {name}}}
spec:
  connector: file
  config: {{path: "{folder}", pattern: "*.csv", format: csv, watch: true}}
  to: [{{topic: {topic}}}]
""",
    """---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec:
  from: {topic}
  start: earliest
  steps: [{{filter: "event.amount > 0.0"}}]
  to: {target}
""",
    """---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: {name}}}
spec:
  from: {topic}
  start: earliest
  connector: http
  connection: away
  config: {{url: /}}
""",
    """---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: {name}}}
spec:
  connector: webhook
  config: {{path: /hooks/{name}, verify: {{provider: none}}}}
  to: [{{topic: {topic}}}]
""",
    """---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec:
  from: {topic}
  start: earliest
  processing: at-least-once
  steps: [{{map: {{set: {{amount: event.amount * 2.0}}}}}}]
  to: {target}
""",
    """---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: {name}}}
spec:
  from: {topic}
  start: earliest
  connector: file
  config: {{folder: "{folder}", format: {{type: jsonl}}}}
""",
)


def idle_manifests(count: int, folder: Path) -> str:
    """`count` pipelines, a sixth of each kind: polled and knocked-at sources, both kinds of streams, both kinds of sinks."""
    parts = [CONNECTION]
    parts += [TOPIC.format(name=f"{side}-{number}") for side in ("in", "out") for number in range(TOPICS)]
    for index in range(count):
        number = index % TOPICS
        own = folder / f"files-{index}"
        own.mkdir(exist_ok=True)
        parts.append(
            KINDS[index % len(KINDS)].format(name=f"p{index}", folder=own, topic=f"in-{number}", target=f"out-{number}")
        )
    return "".join(parts)


def idle(place: stand.Stand, count: int, seconds: float = IDLE_SECONDS) -> dict[str, float]:
    """What `count` idle pipelines cost, from the moment when they have settled."""
    with stand.worker(place, f"idle{count}", idle_manifests(count, place.folder)) as worker:
        time.sleep(10)
        before, broker_before, begun = (
            stand.cpu_seconds(worker.pid),
            stand.cpu_seconds(place.broker_pid),
            time.monotonic(),
        )
        time.sleep(seconds)
        passed = time.monotonic() - begun
        return {
            "pipelines": count,
            "memory": stand.resident(worker.pid),
            "peak": stand.peak(worker.pid),
            "threads": stand.threads(worker.pid),
            "idle": 100 * (stand.cpu_seconds(worker.pid) - before) / passed,
            "broker": 100 * (stand.cpu_seconds(place.broker_pid) - broker_before) / passed,
            "start": worker.start_seconds,
        }
