"""Row 20: Avro data that are broken by chance and on purpose, on topics of ours and of strangers."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.chaos.campaign import Run, row
from tests.chaos.faults.child import in_child
from tests.chaos.faults.processes import Fleet
from tests.chaos.gather import Ledgers
from tests.chaos.scene import PATIENCE
from tests.integration.bus_harness import topic_manifest
from tests.namespaces import new_namespace
from tests.unit.bus.plain_streams import ORDER
from tests.unit.registry.damage import mutated
from trunkline.bus.kafka import KafkaSettings, produce, read_all
from trunkline.bus.names import Names
from trunkline.cli.endpoint import read_endpoint
from trunkline.core.errors import TrunklineError
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Encoder

CHILD = "tests.chaos.faults.hostile_avro"
MOST_SECONDS, MOST_MIB = 1.0, 256
MUTATED, CRAFTED, THROUGH = "mutated data", "crafted data", "mutated data through a worker"
TRUSTS = ("internal", "external")
STEPS = {
    "keeps": "[{filter: event.amount > 0.0}]",
    "changes": "[{map: {keep: all, set: {amount: event.amount * 2.0}}}]",
}


@row(
    20,
    "broken Avro",
    load="streams of the short and of the long way, on topics of ours and of strangers",
    fault="{mutated:,} mutated data, {crafted} crafted ones; {through:,} of them through a worker",
    full={"mutated": 20_000, "crafted": 60, "through": 20_000},
    short={"mutated": 400, "crafted": 60, "through": 120},
    minutes=5,
)
async def broken_avro(run: Run) -> None:
    """No process dies, none of the data costs much, and nothing of the crafted set is read as something else."""
    kafka = await run.kafka()
    grown, _ = await asyncio.gather(
        in_child(CHILD, {"seed": run.seed, "mutated": run["mutated"]}), _through_a_worker(run, kafka)
    )
    run.claim(grown.answer is not None, f"the process ended by {grown.ended}: {grown.errors}")
    found: dict[str, Any] = grown.answer or {"wrong": [], "crafted": 0, "mutated": 0, "seconds": 0.0, "MiB": 0}
    run.claim(not found["wrong"], f"misread: {found['wrong'][:5]}")
    run.claim(found["MiB"] <= MOST_MIB, f"{found['MiB']} MiB were taken")
    if run.full:
        run.claim(found["seconds"] <= MOST_SECONDS, f"{found.get('case')!r} took {found['seconds']} s")
    run.fires({MUTATED: found["mutated"], CRAFTED: found["crafted"]})
    run.must_fire(MUTATED, run["mutated"])
    run.must_fire(CRAFTED, run["crafted"])
    run.must_fire(THROUGH, run["through"])
    run.note("mutated and yet good Avro", found.get("decoded", 0))
    run.note("slowest, in CPU seconds", f"{found['seconds']} ({found.get('case', '')})")
    run.note("memory grew by", f"{found['MiB']} MiB")


async def _through_a_worker(run: Run, kafka: KafkaSettings) -> None:
    """Every record of both topics is settled by every stream, and the worker lives."""
    names = Names(new_namespace("chaos"))
    project = run.folder / "project.yaml"
    project.write_text("\n".join(_manifests(names)), encoding="utf-8")
    count = run["through"] // len(TRUSTS)
    with Fleet(kafka.bootstrap, names.namespace, project, run.folder) as workers:
        pid = workers.pid(0)
        encoder = await _until(lambda: _encoder(run, names), "a registered schema", workers)
        good = encoder.encode({"id": 7, "customer": "acme", "amount": 5.0, "note": "a note that is cut"})
        for trust in TRUSTS:
            values = [mutated(run.chance, good) for _ in range(count)]
            await asyncio.to_thread(_send, kafka, _topic(names, trust), values)
        ledgers = Ledgers(kafka, names)
        for trust in TRUSTS:
            for steps in STEPS:
                pipeline, topic = f"{steps}-{trust}", _topic(names, trust)
                await _until(lambda: ledgers.read(pipeline, topic) >= count, f"{pipeline} settled", workers)  # noqa: B023
        await asyncio.to_thread(ledgers.close)
        run.claim(workers.is_alive(0) and workers.pid(0) == pid, f"the worker ended: {workers.crashed}")
    for trust in TRUSTS:
        for steps in STEPS:
            delivered, dead = await asyncio.gather(
                asyncio.to_thread(_count, kafka, _topic(names, f"{steps}.{trust}")),
                asyncio.to_thread(_count, kafka, names.dead_letters(f"{steps}-{trust}")),
            )
            run.claim(dead > 0, f"{steps}-{trust} has no dead letters")
            run.claim(delivered + dead <= count, f"{steps}-{trust}: {delivered} and {dead} of {count}")
            if steps == "changes":  # it filters nothing
                run.claim(delivered + dead == count, f"{steps}-{trust}: {delivered} and {dead} of {count}")
    run.fires({THROUGH: count * len(TRUSTS)})


def _topic(names: Names, name: str) -> str:
    return f"{names.namespace}.{name}"


def _manifests(names: Names) -> list[str]:
    texts = []
    for trust in TRUSTS:
        texts.append(topic_manifest(_topic(names, trust), schema=ORDER, extra=f", trust: {trust}"))
        for steps, text in STEPS.items():
            out = _topic(names, f"{steps}.{trust}")
            texts.append(topic_manifest(out, schema=ORDER))
            texts.append(
                f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {steps}-{trust}}}
spec:
  from: "{_topic(names, trust)}"
  start: earliest
  steps: {text}
  to: "{out}"
  dead_letters: {{stop_above: null}}
"""
            )
    return texts


def _encoder(run: Run, names: Names) -> Encoder | None:
    endpoint = read_endpoint(run.folder / "worker-0")
    if endpoint is None:
        return None
    registry = RegistryClient(endpoint.registry)
    try:
        return Encoder(registry.latest(f"{_topic(names, 'internal')}-value"))
    finally:
        registry.close()


async def _until(condition: Any, what: str, workers: Fleet, seconds: float = PATIENCE) -> Any:
    """What a condition gives once it gives something true. A worker that ended is not started again here."""
    async with asyncio.timeout(seconds):
        while True:
            try:
                found = await asyncio.to_thread(condition)
            except TrunklineError:
                found = None
            if found:
                return found
            if not workers.is_alive(0):
                raise AssertionError(f"the worker ended before {what}\n{workers.logs[-4000:]}")
            await asyncio.sleep(0.2)


def _send(kafka: KafkaSettings, topic: str, values: list[bytes]) -> None:
    producer = kafka.producer()
    for value in values:
        produce(producer, topic, value, b"k", [])
    assert producer.flush(60) == 0


def _count(kafka: KafkaSettings, topic: str) -> int:
    return sum(1 for _ in read_all(kafka, topic))
