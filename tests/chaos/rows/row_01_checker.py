"""Row 1: the checker itself. Who finds nothing must be known to find something."""

from __future__ import annotations

import asyncio
import random
from contextlib import nullcontext
from typing import Any

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise, check
from tests.chaos.faults.http_sink import HttpSinkServer, Rule
from tests.chaos.history import Acknowledged, History, Sent
from tests.chaos.mutants import CUT_AFTER_EFFECT, MUTANTS, PASSING, REFUSED, Mutant
from tests.chaos.planted import PLANTS, PROMISE, good_history, planted
from tests.integration.bus_harness import (
    Bus,
    bus,
    http_connection,
    http_sink,
    order,
    set_topic,
    topic_manifest,
    unframed,
)
from trunkline.bus.states import State
from trunkline.core.envelope import Headers

CUSTOMERS, PARTITIONS = 6, 2


@row(
    1,
    "the checker",
    load="{plants} planted bad histories; {mutants} mutant buses and a sound one, {events} events each",
    fault="one promise broken in each",
    full={"plants": 10, "mutants": 8, "events": 120},
    short={"plants": 10, "mutants": 1, "events": 40},
    minutes=5,
)
async def checker(run: Run) -> None:
    """Every bad history and every mutant is caught, and sound ones are accepted."""
    caught = sum(_plant_is_found(run, plant) for plant in PLANTS[: run["plants"]])
    run.claim(not check(History(good_history()), [PROMISE]), "a good history is not accepted")
    kafka = await run.kafka()
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        async with bus(kafka.bootstrap, run.folder / "worker") as made:
            warm = gather.Ledgers(kafka, made.names)  # has the broker make its offsets topic
            await asyncio.to_thread(warm.of, "nobody", made.name("nothing"))
            await asyncio.to_thread(warm.close)
            await made.add(http_connection("peer", server.url))
            sound = await _trial(run, made, server, None, 0)
            run.claim(not sound, f"a sound bus is not accepted: {'; '.join(sound)}")
            chosen = run.chance.sample(MUTANTS, run["mutants"])
            for number, mutant in enumerate(chosen, 1):
                kinds = await _trial(run, made, server, mutant, number)
                found = any(wanted in kind for kind in kinds for wanted in mutant.found)
                run.claim(found, f"the mutant {mutant.name!r} was not caught: {kinds or 'nothing found'}")
                caught += found
        run.fires(server.fired)
    run.note("caught", f"{caught} of {run['plants'] + run['mutants']}")


def _plant_is_found(run: Run, plant: Any) -> bool:
    history, kind = planted(plant, random.Random(run.chance.random()))
    findings = check(history, [PROMISE])
    found = any(kind in finding.kind for finding in findings)
    run.claim(found, f"planted {plant.__name__!r}, found {[str(one) for one in findings] or 'nothing'}")
    return found


async def _trial(run: Run, made: Bus, server: HttpSinkServer, mutant: Mutant | None, number: int) -> list[str]:
    """Runs a sink through its fault and gives what the checker finds."""
    pipeline, topic = f"sink{number}", made.name(f"load{number}")
    faults = (mutant.fault,) if mutant is not None else (PASSING, CUT_AFTER_EFFECT, REFUSED)
    server.script(*(_only(rule, f"/{pipeline}") for rule in faults))
    await made.add(topic_manifest(topic, PARTITIONS))
    history = await _load(run, made, topic)
    manifest = http_sink(pipeline, topic, connection="peer", delivery=", access_refusals: 100")
    if mutant is not None and mutant.small_dead_letters:
        await made.create(made.names.dead_letters(pipeline), PARTITIONS)
        await set_topic(made.settings, made.names.dead_letters(pipeline), max_message_bytes="10")
    with mutant.replaced() if mutant is not None else nullcontext():
        await made.add(manifest)
        await made.until(lambda: _done(made, pipeline, topic, run["events"]), f"{pipeline} at its end")
        await made.remove(manifest)
    await asyncio.to_thread(_gather, history, made, server, pipeline, topic)
    return [str(one) for one in check(history, [Promise(pipeline, ("load",))])]


def _only(rule: Rule, path: str) -> Rule:
    return Rule(rule.answer, path, rule.ids, rule.share, rule.attempts, rule.delay, rule.headers)


async def _load(run: Run, made: Bus, topic: str) -> History:
    history = History()
    encoder = await made.encoder(topic)
    records: list[tuple[bytes | None, bytes | None, Headers]] = []
    for number in range(run["events"]):
        customer = f"c{run.chance.randrange(CUSTOMERS)}"
        value = encoder.encode(order(number, customer))
        records.append((value, customer.encode(), []))
        history.add(Sent(str(number), "load", customer, number, value=value, raw_key=customer.encode()))
    await made.send(topic, records)
    history.extend(Acknowledged(str(number), "load", by="the broker") for number in range(run["events"]))
    return history


def _done(made: Bus, pipeline: str, topic: str, events: int) -> bool:
    report = made.report(pipeline)
    read = sum(offset for place, offset in report.positions.items() if topic in str(place))
    return read >= events or report.state is State.FAILED


def _gather(history: History, made: Bus, server: HttpSinkServer, pipeline: str, topic: str) -> None:
    def name(message: Any) -> str:
        return str(unframed(message.value())["id"])

    values = {sent.value: sent.id for sent in history.of(Sent)}
    trimmed = {sent.value[:-1]: sent.id for sent in history.of(Sent) if sent.value is not None}
    history.extend(gather.placed(made.settings, topic, name))
    history.extend(gather.commits(made.settings, made.names, [pipeline]))
    history.extend(
        gather.dead_letters(
            made.settings,
            made.names,
            pipeline,
            lambda letter: values.get(letter.value) or trimmed.get(letter.value or b"") or "unknown",
        )
    )
    history.extend(server.facts({f"/{pipeline}": pipeline}))
