"""What growth costs: idle pipelines in one worker, partitions whose lag is collected, minutes of load, a broker's cold start."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import TopicPartition

from benchmarks import stand
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.lag import LagReader
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicPlan, ensure_topics

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


def lag(place: stand.Stand, partitions: int, rounds: int = 5) -> dict[str, float]:
    """How long the lag of `partitions` takes: in offsets; in seconds for the first time, when every partition is behind; from the cache."""
    settings, names = KafkaSettings(place.bootstrap), Names(f"lag{partitions}")
    topic = f"lagging-{partitions}"
    ensure_topics(settings, [TopicPlan(topic, partitions)])
    producer = settings.producer()
    for number in range(partitions):
        for _ in range(3):
            producer.produce(topic, b"x" * 200, partition=number)
        producer.poll(0)
    if producer.flush(60):
        raise SystemExit("the records could not be written")
    consumer = settings.consumer(names.group("late"))
    consumer.commit(offsets=[TopicPartition(topic, number, 1) for number in range(partitions)], asynchronous=False)
    consumer.close()
    reader = LagReader(settings, names)
    reader.offsets(["late"])  # the first question finds brokers and leaders
    offsets = _median_seconds(lambda: reader.offsets(["late"]), rounds)
    first = _median_seconds(lambda: reader.measure(["late"]), 1)
    found = reader.measure(["late"])
    if len(found) != partitions or any(one.records != 2 or one.seconds is None for one in found):
        raise SystemExit(f"{len(found)} of {partitions} partitions have a lag: {found[:3]}")
    return {
        "partitions": partitions,
        "offsets": offsets,
        "first": first,
        "cached": _median_seconds(lambda: reader.measure(["late"]), rounds),
    }


def _median_seconds(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        begun = time.monotonic()
        work()
        taken.append(time.monotonic() - begun)
    return statistics.median(taken)
