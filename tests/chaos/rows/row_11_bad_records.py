"""Row 11: bad records of twenty kinds lie among good ones, before a sink and a stream."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.direct import Door, Record, event_encoder, letter_id
from tests.chaos.faults.http_sink import HttpSinkServer, Rule
from tests.chaos.history import DeadLetter, Effect, Headers, History
from tests.chaos.scene import EVENT, PATIENCE, event_id
from tests.integration.bus_harness import bus, http_connection, http_sink, topic_manifest
from trunkline.registry.codec import Encoder

Maker = Callable[[bytes, random.Random], bytes | None]
PREFIX = 5
KEYS = 50
TOO_LARGE = 30_000
OUTPUT_LIMIT = 20_000
UNDECODABLE: dict[str, Maker] = {
    "empty": lambda _good, _chance: b"",
    "tombstone": lambda _good, _chance: None,
    "text": lambda _good, _chance: b"no avro at all",
    "json": lambda _good, _chance: json.dumps({"id": "e", "key": "k", "sequence": 1}).encode(),
    "other magic": lambda good, _chance: b"\1" + good[1:],
    "magic alone": lambda good, _chance: good[:1],
    "schema id cut": lambda good, _chance: good[:3],
    "no datum": lambda good, _chance: good[:PREFIX],
    "unknown schema": lambda good, _chance: b"\0\0\0\x7f\xf0" + good[PREFIX:],
    "schema id 0": lambda good, _chance: b"\0\0\0\0\0" + good[PREFIX:],
    "negative schema id": lambda good, _chance: b"\0\xff\xff\xff\xff" + good[PREFIX:],
    "last byte cut": lambda good, _chance: good[:-1],
    "cut anywhere": lambda good, chance: good[: chance.randrange(PREFIX + 1, len(good))],
    "byte too many": lambda good, chance: good + chance.randbytes(1),
    "negative length": lambda good, _chance: good[:PREFIX] + b"\1" + good[PREFIX + 1 :],
    "endless length": lambda good, _chance: good[:PREFIX] + b"\x80\x80\x80\x80\x80\x40" + good[PREFIX + 1 :],
    "over-long number": lambda good, _chance: good[:PREFIX] + b"\xff" * 11 + good[PREFIX + 1 :],
    "no UTF-8": lambda good, _chance: good[: PREFIX + 1] + b"\xff" + good[PREFIX + 2 :],
}
"""Kinds that no decoder may take, each made from the bytes of a good record."""
REFUSED = "refused with 422, divides by zero"
LARGE = "refused with 413, too large for the output"
KINDS = (*UNDECODABLE, REFUSED, LARGE)
assert len(KINDS) == 20
OWN_HEADERS: tuple[Headers, ...] = ((), (("tenant", b"a"), ("tenant", b"b")), (("raw", b"\xff\x00"), ("none", b"")))


@row(
    11,
    "bad records",
    load="{good:,} good records, a topic read by a sink and by a stream",
    fault="{bad:,} bad records of 20 kinds among them",
    full={"good": 10_000, "bad": 1_000},
    short={"good": 100, "bad": 40},
    minutes=5,
)
async def bad_records(run: Run) -> None:
    """Every bad record is a dead letter, byte for byte, on both ways, and every good one goes past it, in order."""
    kafka = await run.kafka()
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        async with bus(kafka.bootstrap, run.folder / "worker") as running:
            topic, output = running.name("mixed"), running.name("computed")
            encoder = await event_encoder(running.registry, topic)
            records = _records(run, encoder)
            server.script(
                Rule(422, ids=tuple(one.id for one, kind in records if kind == REFUSED)),
                Rule(413, ids=tuple(one.id for one, kind in records if kind == LARGE)),
            )
            door = Door(kafka, topic)
            await running.start(
                topic_manifest(topic, 4, schema=EVENT)
                + topic_manifest(output, 4, schema=EVENT, extra=f", config: {{max.message.bytes: {OUTPUT_LIMIT}}}")
                + http_connection("peer", server.url)
                + http_sink("mixed-send", topic, connection="peer")
                + _stream("mixed-work", topic, output)
            )
            begun = time.monotonic()
            await asyncio.to_thread(door.write, [one for one, _ in records])
            for route in ("mixed-send", "mixed-work"):
                await running.until(
                    lambda route=route: running.counts(route).get("read") == len(records),  # type: ignore[misc]
                    f"all read by {route}",
                    PATIENCE,
                )
            run.note("records/s", round(2 * len(records) / (time.monotonic() - begun)))
            await running.stop()
            names = running.names
        history = await asyncio.to_thread(_history, run, door, server, kafka, names, output)
    run.judge(
        history,
        [Promise(route, (topic,), most_repeats=0, dead_once=True) for route in ("mixed-send", "mixed-work")],
    )
    bad = {one.id for one, kind in records if kind}
    for route in ("mixed-send", "mixed-work"):
        letters = {one.id for one in history.of(DeadLetter) if one.route == route}
        effects = {one.id for one in history.of(Effect) if one.route == route}
        run.note(f"{route}: dead letters", len(letters))
        run.note(f"{route}: delivered", len(effects))
        run.claim(letters == bad, f"{route}: {len(letters ^ bad)} records were dead letters wrongly, or not")
        run.claim(effects == {one.id for one, kind in records if not kind}, f"{route}: {len(effects)} delivered")
    for number, kind in enumerate(KINDS):
        run.fires({kind: sum(found == kind for _, found in records)})
        run.must_fire(kind, run["bad"] // len(KINDS) + (number < run["bad"] % len(KINDS)))


def _stream(name: str, source: str, target: str) -> str:
    return f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {name}}}
spec:
  from: "{source}"
  start: earliest
  steps: [{{map: {{keep: all, set: {{sequence: event.sequence + 0 / event.sequence}}}}}}]
  to: "{target}"
"""


def _records(run: Run, encoder: Encoder) -> list[tuple[Record, str]]:
    """Good records, whose kind is empty, and bad ones, shuffled. A key's sequences begin at 1 and count the good ones."""
    chance = run.chance
    kinds = [""] * run["good"] + [KINDS[number % len(KINDS)] for number in range(run["bad"])]
    chance.shuffle(kinds)
    sequences = [0] * KEYS
    records = []
    for number, kind in enumerate(kinds):
        key = chance.randrange(KEYS)
        sequences[key] += not kind
        event = {"id": f"e{number}", "key": f"k{key}", "sequence": 0 if kind else sequences[key]}
        padding = chance.randbytes(TOO_LARGE // 2).hex() if kind == LARGE else "x" * chance.randrange(200)
        value: bytes | None = encoder.encode({**event, "padding": padding})
        if kind in UNDECODABLE:
            assert value is not None
            value = UNDECODABLE[kind](value, chance)
        raw_key = None if kind and chance.random() < 0.2 else f"k{key}".encode()
        records.append(
            (Record(f"e{number}", value, f"k{key}", sequences[key], raw_key, chance.choice(OWN_HEADERS)), kind)
        )
    return records


def _history(run: Run, door: Door, server: HttpSinkServer, kafka: Any, names: Any, output: str) -> History:
    history = History(door.facts)
    history.extend(gather.published(kafka, output, "mixed-work", event_id))
    for route in ("mixed-send", "mixed-work"):
        history.extend(gather.dead_letters(kafka, names, route, letter_id))
    history.extend(gather.commits(kafka, names, ["mixed-send", "mixed-work"]))
    history.extend(server.facts({"/mixed-send": "mixed-send"}))
    return history
