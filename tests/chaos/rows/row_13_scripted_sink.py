"""Row 13: the other system gives every answer there is, and each gets what the class table says."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import chain

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.direct import Door, Record, event_encoder, letter_id
from tests.chaos.faults.http_sink import Answer, HttpSinkServer, Rule
from tests.chaos.history import Attempt, Committed, DeadLetter, Effect, History
from tests.chaos.scene import EVENT, PATIENCE
from tests.integration.bus_harness import Bus, bus, http_connection, http_sink, topic_manifest
from trunkline.bus.deadletters import EXCEPTION

KEYS = 20
PARTITIONS = 2
AGAIN = 2
"""How often a record is refused that passes in the end."""
EVERY = 10
"""One of so many events is in trouble, so that the account as a whole is not."""
REFUSALS_IN_A_ROW = 6


@dataclass(frozen=True, slots=True)
class Case:
    """An answer, and what the records that get it come to: `dead`, `delivered` in the end, or `held` with the pipeline FAILED."""

    name: str
    answer: Answer
    comes_to: str
    code: str = ""
    """The dead letters' code, or the failure's."""
    config: str = ""

    @property
    def sink(self) -> str:
        """Its sink, whose server sees it as the path `/<sink>`."""
        return f"answer-{self.name}"


CASES = (
    *(Case(str(status), status, "dead", f"http.{status}") for status in (400, 403, 404, 409, 413)),
    *(Case(str(status), status, "delivered") for status in (429, 500, 503)),
    Case("time-out", "time-out", "delivered", config=", timeout: 1s"),
    *(Case(str(name), name, "delivered") for name in ("reset", "garbage", "effect-then-drop")),
    Case("401", 401, "held", "http.unauthorized"),
    *(Case(f"only-{status}", status, "held", "sink.access") for status in (403, 404)),
)


@row(
    13,
    "a scripted sink",
    load="{events:,} events to 15 http sinks",
    fault="400 401 403 404 409 413 429 500 503, time-out, reset, garbage, effect-then-drop; 403 and 404 for all",
    full={"events": 5_000},
    short={"events": 300},
    minutes=6,
)
async def scripted_sink(run: Run) -> None:
    """A bad record is a dead letter alone, what may pass is tried again, and what is our fault holds everything until mended."""
    kafka = await run.kafka()
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        async with bus(kafka.bootstrap, run.folder / "worker") as running:
            events = {case: await _events(run, running, case, number) for number, case in enumerate(CASES)}
            troubled = {case: _troubled(run, case, events[case]) for case in CASES}
            server.script(*chain.from_iterable(_rules(case, troubled[case]) for case in CASES))
            await running.start("".join(_manifests(case, running, server) for case in CASES))
            doors = {case: Door(kafka, running.name(case.sink)) for case in CASES}
            for case, door in doors.items():
                await asyncio.to_thread(door.write, events[case])
            held = [case for case in CASES if case.comes_to == "held"]
            for case in held:
                await _failed(run, running, case)
            history = await asyncio.to_thread(_history, running, doors, server)
            _nothing_passed(run, history, doors, troubled, held)
            healthy = [case for case in CASES if case.comes_to != "held"]
            server.script(*chain.from_iterable(_rules(case, troubled[case]) for case in healthy))
            for case in held:
                await running.wish(case.sink, restart=True)
            for case in CASES:
                await running.until(
                    lambda case=case: running.counts(case.sink).get("read") == len(events[case]),  # type: ignore[misc]
                    f"all of {case.name} settled",
                    PATIENCE,
                )
            codes = {case: {one.header(EXCEPTION) for one in await running.dead_letters(case.sink)} for case in CASES}
            await running.stop()
            history = await asyncio.to_thread(_history, running, doors, server)
        run.fires(server.fired)
    run.judge(history, [Promise(case.sink, (running.name(case.sink),), dead_once=True) for case in CASES])
    for case in CASES:
        _holds(run, history, case, {one.id for one in events[case]}, troubled[case], codes[case])
        run.must_fire(f"answer {case.answer}", 1 if case.comes_to == "held" else len(troubled[case]))
    run.must_fire("pipeline FAILED", len(held))
    run.note("calls", len(history.of(Attempt)))
    run.note("dead letters", len(history.of(DeadLetter)))
    run.note("delivered", len(history.of(Effect)))


async def _events(run: Run, running: Bus, case: Case, number: int) -> list[Record]:
    encoder = await event_encoder(running.registry, running.name(case.sink))
    sequences = [0] * KEYS
    records = []
    for one in range(run["events"] // len(CASES) + (number < run["events"] % len(CASES))):
        key = run.chance.randrange(KEYS)
        name = f"{case.name}/{one}"
        event = {"id": name, "key": f"k{key}", "sequence": sequences[key]}
        value = encoder.encode({**event, "padding": ""})
        records.append(Record(name, value, f"k{key}", sequences[key], f"k{key}".encode()))
        sequences[key] += 1
    return records


def _troubled(run: Run, case: Case, events: list[Record]) -> set[str]:
    """The events that the answer is for: one of ten, or all from some time on.

    A refusal that may be ours counts as the record's own where another record is accepted after it: so all are refused then.
    """
    if case.comes_to == "held":
        return {one.id for one in events[len(events) // 3 if case.answer == 401 else 0 :]}
    first = run.chance.randrange(
        EVERY // 2
    )  # never the last: after a refusal that may be ours something else is answered
    return {one.id for one in events[first:-1:EVERY]}


def _rules(case: Case, troubled: set[str]) -> list[Rule]:
    path, ids = f"/{case.sink}", tuple(sorted(troubled))
    if case.comes_to != "delivered":
        return [Rule(case.answer, path, ids)]
    if case.answer != 429:
        return [Rule(case.answer, path, ids, attempts=AGAIN)]
    asking = Rule(429, path, ids[:2], attempts=1, headers=(("Retry-After", "1"),))
    return [asking, Rule(429, path, ids, attempts=AGAIN)]


def _manifests(case: Case, running: Bus, server: HttpSinkServer) -> str:
    topic = running.name(case.sink)
    # A connection for each: what one account suffers, its breaker and its pauses, is not the others'.
    sink = http_sink(
        case.sink,
        topic,
        connection=f"peer-{case.name}",
        config=case.config,
        delivery=f", access_refusals: {REFUSALS_IN_A_ROW}",
    ).replace("min_delay: 20ms", "attempts: 1000, min_delay: 20ms")
    return topic_manifest(topic, PARTITIONS, schema=EVENT) + http_connection(f"peer-{case.name}", server.url) + sink


async def _failed(run: Run, running: Bus, case: Case) -> None:
    report = await running.until_failed(case.sink, failures=2)  # the first restart is at once
    run.claim(report.code == case.code, f"{case.name}: the pipeline failed with {report.code}: {report.reason}")
    run.claim(report.restart_at is not None, f"{case.name}: the pipeline is not started again by itself")
    run.fires({"pipeline FAILED": 1})


def _nothing_passed(
    run: Run, history: History, doors: dict[Case, Door], troubled: dict[Case, set[str]], held: list[Case]
) -> None:
    """While a pipeline is FAILED nothing of what was refused is dead-lettered, and no commit has passed it."""
    commits = history.of(Committed)
    for case in held:
        dead = [one.id for one in history.of(DeadLetter) if one.route == case.sink]
        run.claim(not dead, f"{case.name}: {len(dead)} dead letters though nothing is wrong with the records")
        for place in doors[case].places():
            if place.id not in troubled[case]:
                continue
            passed = [one for one in commits if one.route == case.sink and one.partition == place.partition]
            over = [one.offset for one in passed if one.offset > place.offset]
            run.claim(not over, f"{case.name}: a commit of {over[:1]} passed the refused record at {place.offset}")


def _holds(run: Run, history: History, case: Case, all_ids: set[str], troubled: set[str], codes: set[str]) -> None:
    """What the table says of this answer."""
    dead = {one.id for one in history.of(DeadLetter) if one.route == case.sink}
    effects = {one.id for one in history.of(Effect) if one.route == case.sink}
    calls = [one.id for one in history.of(Attempt) if one.route == case.sink and one.id in troubled]
    expected = troubled if case.comes_to == "dead" else set()
    run.claim(dead == expected, f"{case.name}: dead letters {sorted(dead ^ expected)[:5]}")
    run.claim(effects == all_ids - expected, f"{case.name}: effects {sorted(effects ^ (all_ids - expected))[:5]}")
    if case.comes_to == "dead":
        run.claim(codes == {case.code}, f"{case.name}: dead letters with {codes}")
        run.claim(len(calls) == len(troubled), f"{case.name}: {len(calls)} calls for {len(troubled)} bad records")
    if case.comes_to == "delivered":
        wanted = len(troubled) * (AGAIN + 1)
        run.claim(len(calls) >= wanted, f"{case.name}: {len(calls)} calls of {wanted}")


def _history(running: Bus, doors: dict[Case, Door], server: HttpSinkServer) -> History:
    history = History(fact for door in doors.values() for fact in door.facts)
    for case in doors:
        history.extend(gather.dead_letters(running.settings, running.names, case.sink, letter_id))
    sinks = [case.sink for case in doors]
    history.extend(gather.commits(running.settings, running.names, sinks))
    history.extend(server.facts({f"/{sink}": sink for sink in sinks}))
    return history
