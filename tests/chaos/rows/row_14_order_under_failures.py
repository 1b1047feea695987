"""Row 14: deliveries of some keys fail for a while, one by one and within batches, and all others are to notice nothing of it."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from itertools import pairwise

from sinks.salesforce.mock import SalesforceMock
from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.direct import Door, Record, event_encoder, letter_id
from tests.chaos.faults.http_sink import HttpSinkServer, Rule
from tests.chaos.history import Effect, History, Sent
from tests.chaos.scene import EVENT, PATIENCE
from tests.integration.bus_harness import Bus, bus, http_connection, http_sink, topic_manifest
from trunkline.registry.codec import Encoder

CALM, TROUBLED, BATCHES = "calm", "troubled", "batches"
TIMES_BASELINE = 2.0
SICK_SHARE = 10
"""One key of so many has all the failures: every second of its events fails, which is 5 % of all."""
FAILS = 2
LOCK = "a record of a batch refused"
OBJECT, KEY_FIELD, SEQUENCE_FIELD = "Flight__c", "Flight_Key__c", "Minutes_Late__c"


@row(
    14,
    "order under failures",
    load="{keys} keys x {each} events, {rate}/s, to two http sinks, one of them calm, and to a sink with batches",
    fault="5 % of the events get 503 twice; of {locks} batches a record is refused for now",
    full={"keys": 100, "each": 200, "rate": 250, "locks": 100},
    short={"keys": 20, "each": 10, "rate": 400, "locks": 5},
    minutes=6,
)
async def order_under_failures(run: Run) -> None:
    """No key's events are swapped, and keys without failures are as fast as beside a sink that never fails."""
    kafka = await run.kafka()
    org = SalesforceMock()
    await org.start()
    os.environ["CHAOS_ORG_SECRET"] = org.tokens.client_secret
    run.stack.push_async_callback(org.stop)
    with HttpSinkServer(run.folder, seed=run.seed) as server:
        async with bus(kafka.bootstrap, run.folder / "worker") as running:
            topic = running.name("ordered")
            records, sick = _records(run, await event_encoder(running.registry, topic))
            troubled = tuple(one.id for one in records if one.key in sick and one.sequence % 2)
            server.script(Rule(503, f"/{TROUBLED}", troubled, attempts=FAILS))
            batches: dict[str, list[int]] = {one.key: [] for one in records}
            _watch(org, batches)
            await running.start(_manifests(running, server, org, topic))
            await running.until_running(CALM, TROUBLED, BATCHES)
            door = Door(kafka, topic)
            await _paced(run, door, records, org)
            for sink in (CALM, TROUBLED, BATCHES):
                await running.until(
                    lambda sink=sink: running.counts(sink).get("read") == len(records),  # type: ignore[misc]
                    f"all settled by {sink}",
                    PATIENCE,
                )
            await running.stop()
            history = await asyncio.to_thread(_history, running, door, server)
        run.fires(server.fired)
        run.fires({LOCK: run["locks"] - len(org._failures)})
    run.must_fire("answer 503", FAILS * len(troubled))
    run.must_fire(LOCK, run["locks"])
    run.judge(history, [Promise(sink, (topic,)) for sink in (CALM, TROUBLED)])
    swapped = [key for key, seen in batches.items() if any(after < before for before, after in pairwise(seen))]
    run.claim(not swapped, f"{BATCHES}: swapped within {swapped[:5]}")
    complete = [key for key, seen in batches.items() if set(seen) == set(range(run["each"]))]
    run.claim(len(complete) == run["keys"], f"{BATCHES}: {len(complete)} of {run['keys']} keys are whole")
    _compare(run, history, sick)


def _records(run: Run, encoder: Encoder) -> tuple[list[Record], set[str]]:
    """The keys' events in any order, each key's in its own, and the keys that have the failures."""
    order = [f"k{number % run['keys']}" for number in range(run["keys"] * run["each"])]
    run.chance.shuffle(order)
    counts: Counter[str] = Counter()
    records = []
    for key in order:
        sequence = counts[key]
        counts[key] += 1
        name = f"{key}-{sequence}"
        value = encoder.encode({"id": name, "key": key, "sequence": sequence, "padding": ""})
        records.append(Record(name, value, key, sequence, key.encode()))
    return records, set(run.chance.sample(sorted(counts), run["keys"] // SICK_SHARE))


def _watch(org: SalesforceMock, seen: dict[str, list[int]]) -> None:
    """Notes the sequence of every record in the order in which the stand-in takes it."""
    upsert = org.org.upsert

    def noted(obj: str, field: str, record: dict[str, object]) -> tuple[str, bool]:
        made = upsert(obj, field, record)
        seen[str(record[KEY_FIELD])].append(int(str(record[SEQUENCE_FIELD]).partition(".")[0]))
        return made

    org.org.upsert = noted  # type: ignore[method-assign]


async def _paced(run: Run, door: Door, records: list[Record], org: SalesforceMock) -> None:
    """Writes at the rate asked for; on the way there the stand-in is told to refuse a record of a batch, again and again."""
    begun = time.monotonic()
    every = len(records) // run["locks"]
    for number, record in enumerate(records):
        door.send(record)
        if number % every == 0 and number // every < run["locks"]:
            org.fail(1, "lock")
        ahead = number / run["rate"] - (time.monotonic() - begun)
        if ahead > 0:
            await asyncio.sleep(ahead)
    await asyncio.to_thread(door.finish)


def _compare(run: Run, history: History, sick: set[str]) -> None:
    """How long the healthy keys' events took, beside the troubled keys' and beside the sink without failures."""
    sent = {one.id: one for one in history.of(Sent)}
    took: dict[str, list[float]] = {CALM: [], TROUBLED: []}
    for effect in history.of(Effect):
        if sent[effect.id].key not in sick:
            took[effect.route].append(effect.at - sent[effect.id].at)
    p99 = {sink: sorted(found)[len(found) * 99 // 100] for sink, found in took.items()}
    for sink, value in p99.items():
        run.note(f"p99 of healthy keys, {sink}", f"{value * 1000:.0f} ms")
    if run.full:
        run.claim(
            p99[TROUBLED] <= TIMES_BASELINE * p99[CALM],
            f"healthy keys took {p99[TROUBLED] * 1000:.0f} ms beside failing ones, {p99[CALM] * 1000:.0f} ms elsewhere",
        )


def _manifests(running: Bus, server: HttpSinkServer, org: SalesforceMock, topic: str) -> str:
    retry = "min_delay: 20ms, max_delay: 200ms"
    text = topic_manifest(topic, 4, schema=EVENT)
    for sink in (CALM, TROUBLED):
        text += http_connection(f"peer-{sink}", server.url)
        text += http_sink(sink, topic, connection=f"peer-{sink}").replace("min_delay", "attempts: 1000, min_delay")
    return (
        text
        + f"""---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: org}}
spec:
  connector: salesforce
  config:
    url: "{org.url}"
    auth: {{type: client_credentials, client_id: "{org.tokens.client_id}", client_secret: "${{env:CHAOS_ORG_SECRET}}"}}
    http: {{allow_private: ["127.0.0.1"]}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: {BATCHES}}}
spec:
  from: "{topic}"
  start: earliest
  connector: salesforce
  connection: org
  config:
    object: {OBJECT}
    external_id: {KEY_FIELD}
    fields: {{{KEY_FIELD}: event.key, {SEQUENCE_FIELD}: event.sequence}}
  delivery: {{batch: {{count: 50, age: 50ms}}, retry: {{attempts: 1000, {retry}}}}}
"""
    )


def _history(running: Bus, door: Door, server: HttpSinkServer) -> History:
    history = History(door.facts)
    for sink in (CALM, TROUBLED):
        history.extend(gather.dead_letters(running.settings, running.names, sink, letter_id))
    history.extend(gather.commits(running.settings, running.names, [CALM, TROUBLED]))
    history.extend(server.facts({f"/{sink}": sink for sink in (CALM, TROUBLED)}))
    return history
