"""What growth costs: idle pipelines in one worker, partitions whose lag is collected, minutes of load, a broker's cold start."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from confluent_kafka import TopicPartition

from benchmarks import latency, report, stand
from benchmarks.sender import KEY
from trunkline.bus.accounting.lagreader import LagReader
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.ledger import Ledger
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
    settings, names = KafkaSettings.from_environment(place.bootstrap), Names(f"lag{partitions}")
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
    reader, one = LagReader(settings), (1, Ledger(first=1))
    committed = {"late": {(topic, number): one for number in range(partitions)}}
    reader.offsets(committed)  # the first question finds brokers and leaders
    offsets = _median_seconds(lambda: reader.offsets(committed), rounds)
    first = _median_seconds(lambda: reader.measure(committed), 1)
    found = reader.measure(committed)
    if len(found) != partitions or any(one.records != 2 or one.seconds is None for one in found):
        raise SystemExit(f"{len(found)} of {partitions} partitions have a lag: {found[:3]}")
    return {
        "partitions": partitions,
        "offsets": offsets,
        "first": first,
        "cached": _median_seconds(lambda: reader.measure(committed), rounds),
    }


def _median_seconds(work: Callable[[], object], rounds: int) -> float:
    taken = []
    for _ in range(rounds):
        begun = time.monotonic()
        work()
        taken.append(time.monotonic() - begun)
    return statistics.median(taken)


def load(place: stand.Stand, minutes: int, rate: int = 200) -> dict[str, float]:
    """Memory of a worker under a constant load: after a minute of warm-up, and at the end."""
    port = stand.free_port()
    receiver = subprocess.Popen([sys.executable, "-m", "benchmarks.arrivals", str(port)], stdout=subprocess.PIPE)
    assert receiver.stdout is not None
    receiver.stdout.readline()
    try:
        manifests = latency.MANIFESTS.format(port=port, rate="load")
        with stand.worker(place, "load", manifests, env={"LATENCY_KEY": KEY}) as worker:
            url = f"{worker.ingress}/hooks/orders"
            latency.send(url, rate, 60)
            warm, threads, files = stand.resident(worker.pid), stand.threads(worker.pid), stand.open_files(worker.pid)
            latency.send(url, rate, 60 * minutes)
            return {
                "minutes": minutes,
                "events": rate * 60 * minutes,
                "warm": warm,
                "after": stand.resident(worker.pid),
                "threads": stand.threads(worker.pid) - threads,
                "files": stand.open_files(worker.pid) - files,
            }
    finally:
        receiver.terminate()
        receiver.wait()


def run(minutes: int = 0) -> list[str]:
    """Measures what growth costs, keeps the sections, and returns their lines. Load is measured where `minutes` are given."""
    lines: list[str] = []
    with stand.stand() as place:
        idling = [idle(place, count) for count in PIPELINES]
        lagging = [lag(place, count) for count in PARTITIONS]
        grown = [load(place, minutes)] if minutes else []
    rows = [
        {
            "idle pipelines": one["pipelines"],
            "memory, MiB": round(one["memory"]),
            "of a core, %": round(one["idle"], 1),
            "of a core in the broker, %": round(one["broker"], 1),
            "start, s": round(one["start"], 1),
            "threads": one["threads"],
        }
        for one in idling
    ]
    notes = [
        (
            "A sixth each: file sources, webhooks, exactly-once and at-least-once streams, HTTP and file sinks, in one worker. Memory is "
            "the whole worker's. The first start on a new cluster creates all topics."
        ),
        f"A new broker answered {place.cold:.1f} s after it was started.",
    ]
    report.add("Idle pipelines in a worker", rows, notes, data=idling)
    lines += [*report.table(rows), ""]
    rows = [
        {
            "partitions": one["partitions"],
            "lag in offsets, s": round(one["offsets"], 3),
            "in seconds for the first time, s": round(one["first"], 3),
            "in seconds from the cache, s": round(one["cached"], 3),
        }
        for one in lagging
    ]
    report.add(
        "Collecting lag",
        rows,
        ["All partitions are behind, so that the first time reads a record of each."],
        data=lagging,
    )
    lines += [*report.table(rows), ""]
    if grown:
        rows = [
            {
                "minutes of load": one["minutes"],
                "events": one["events"],
                "after warm-up, MiB": round(one["warm"]),
                "at the end, MiB": round(one["after"]),
                "more threads": one["threads"],
                "more open files": one["files"],
            }
            for one in grown
        ]
        report.add("Memory under load", rows, data=grown)
        lines += report.table(rows)
    return lines
