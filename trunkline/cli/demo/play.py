"""The play: flights come in by both doors, things go wrong, and everything arrives where it should."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trunkline.bus.accounting.reconcile import PartitionCheck, reconcile
from trunkline.bus.accounting.trace import Hop, find_hops
from trunkline.bus.deadletters import DeadLetter
from trunkline.bus.kafka import produce_and_wait
from trunkline.bus.redrive.transactions import Redrive
from trunkline.bus.states import State
from trunkline.cli.demo.airline import Airline, correlation_id, local_client, message_id, new_secret
from trunkline.cli.demo.flights import NEW_AIRLINE, Flights
from trunkline.cli.demo.stage import Stage
from trunkline.cli.demo.view import View
from trunkline.core.errors import UnavailableError
from trunkline.core.http import HttpClient, HttpOptions
from trunkline.core.http.auth import OAuth2Auth
from trunkline.core.secret import Secret

POISON = b"carrier,flight,minutes\nDL,1,900\n"
"""What somebody wrote to the topic by mistake: no Avro."""
BROKEN_POST = b'{"carrier": "B6", "flight": "four-two"}'
STREAM = "delayed-flights"
CRM = "delayed-to-salesforce"
SINKS = (CRM, "delayed-to-sftp", "delayed-to-sheets", "delayed-to-partner", "critical-to-slack")
SOURCES = ("departures-file", "departures-webhook")
_PATIENCE = 90.0
_LOOK = 0.1


@dataclass(frozen=True, slots=True)
class Played:
    """What the play found out while it ran; the rest is looked up in the end.

    `forged` and `repeated` are statuses, `repeated_answer` what the repeated post was told. `dead` has the dead letters of every
    pipeline, `redriven` the failures that were sent again, `hops` the traced event's way.
    """

    airline: Airline
    forged: int
    repeated: int
    repeated_answer: Mapping[str, object]
    broken: int
    dead: Mapping[str, list[DeadLetter]]
    waiting: int
    redriven: list[DeadLetter]
    sent: int
    before_redrive: Mapping[str, int]
    after_redrive: Mapping[str, int]
    ledgers: Mapping[str, list[PartitionCheck]]
    hops: list[Hop]


async def play(stage: Stage, flights: Flights, view: View) -> Played:
    """Plays to the end. What does not arrive in time is found by the checks afterwards, not here."""
    expected = expected_reads(flights)
    await tell_crm(stage, [carrier for carrier in flights.carriers if carrier != NEW_AIRLINE])
    stage.mocks["slack"].fail(1, "throttled")
    view.say(f"the file source reads {flights.rows} flights from {flights.file.name}, and some rows that are none")

    airline = Airline(f"{stage.worker.ingress.url}/hooks/departures", stage.secret)
    client = local_client()
    try:
        await until(
            lambda: state_of(stage, "departures-webhook") is State.RUNNING and stage.worker.ingress.url != "", 30.0
        )
        airline.url = f"{stage.worker.ingress.url}/hooks/departures"
        view.say(f"the airline posts {len(flights.posts)} signed departures to {airline.url}")
        await airline.post_all(client, flights.posts)
        first = flights.posts[0]
        forged, _ = await airline.post(client, "msg_forged", first, correlation="forger", secret=new_secret())
        view.say(f"somebody posts one with a forged signature: {forged}")
        repeated, answer = await airline.post(client, message_id(0), first, correlation=correlation_id(0))
        view.say(f"the airline repeats one: {repeated}, duplicate {answer.get('duplicate')}: no second event")
        broken, _ = await airline.post(client, "msg_broken", BROKEN_POST, correlation="airline-broken")
        view.say(f"the airline posts one that is no departure: {broken}, kept in quarantine")
    finally:
        await client.close()
    await asyncio.to_thread(produce_and_wait, stage.kafka.producer(), "flights.departed", POISON, b"DL")
    view.say("somebody writes a record to flights.departed that is no Avro: a poisoned record")

    await until(lambda: settled(stage, expected) or failed(stage), _PATIENCE)
    refused = len(flights.of_new_airline)
    view.say(f"all is settled; the CRM refused {refused} flight(s) of {NEW_AIRLINE}, an airline that it does not know")
    before = effects(stage)
    redrive = Redrive(stage.kafka, stage.names, CRM)
    letters = await asyncio.to_thread(redrive.waiting)
    await tell_crm(stage, [NEW_AIRLINE])
    view.say(
        f"an account for {NEW_AIRLINE} is made in the CRM; {len(letters)} dead letter(s) are sent again, to {CRM} only"
    )
    sent = await asyncio.to_thread(lambda: redrive.send(letters, by="demo"))
    await until(lambda: settled(stage, {CRM: expected[CRM] + sent}) or failed(stage), 20.0)
    after = effects(stage)
    expected[CRM] += sent
    view.say("the books are closed: every committed range is read again and compared with its ledger")
    ledgers = await closed(stage, expected)
    dead = await dead_letters(stage)
    waiting = len(await asyncio.to_thread(redrive.waiting))
    hops = await traced(stage, correlation_id(flights.traced))
    return Played(airline, forged, repeated, answer, broken, dead, waiting, letters, sent, before, after, ledgers, hops)


def expected_reads(flights: Flights) -> dict[str, int]:
    """How many records each stream and sink has to read: worked out from the data."""
    delayed = len(flights.delayed)
    return {
        STREAM: flights.total + 1,
        **dict.fromkeys(SINKS, delayed),
        "critical-to-slack": len(flights.critical),
    }


def effects(stage: Stage) -> dict[str, int]:
    """How much lies in each system now."""
    mocks = stage.mocks
    return {
        CRM: len(mocks["salesforce"].contents().get("Flight__c", [])),
        "delayed-to-sftp": sum(one["path"].endswith(".csv") for one in mocks["sftp"].contents()),
        "delayed-to-sheets": len(mocks["google_sheets"].contents().get("Delayed", [])),
        "delayed-to-partner": stage.partner.effects.total(),
        "critical-to-slack": len(mocks["slack"].contents()),
    }


def state_of(stage: Stage, pipeline: str) -> State | None:
    """The state of a pipeline."""
    return next((one.state for one in stage.worker.reports if one.pipeline == pipeline), None)


def failed(stage: Stage) -> bool:
    """Whether a pipeline waits for a person: then waiting for it is no use."""
    return any(one.state is State.FAILED for one in stage.worker.reports)


def settled(stage: Stage, expected: Mapping[str, int]) -> bool:
    """Whether these pipelines have read and settled so many records."""
    counts = {one.pipeline: one.counts for one in stage.worker.reports}
    for pipeline, wanted in expected.items():
        found = counts.get(pipeline, {})
        if (
            found.get("read", 0) < wanted
            or sum(found.get(name, 0) for name in ("delivered", "filtered", "dead")) < wanted
        ):
            return False
    return True


async def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Waits for a condition. False where it did not come in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_LOOK)
    return True


async def tell_crm(stage: Stage, carriers: list[str]) -> None:
    """Makes accounts of airlines in the CRM, through its own API. Raises `UnavailableError` where it refuses."""
    environment = stage.mocks["salesforce"].environment
    url = environment["SF_URL"]
    auth = OAuth2Auth(
        type="oauth2",
        token_url=f"{url}/services/oauth2/token",
        client_id=environment["SF_CLIENT_ID"],
        client_secret=Secret.of(environment["SF_CLIENT_SECRET"]),
    )
    client = HttpClient(HttpOptions(allow_private=["127.0.0.1"]), auth=auth, base_url=url)
    try:
        for carrier in carriers:
            path = f"/services/data/v62.0/sobjects/Account/ExtId__c/{carrier}"
            answer = await client.request("PATCH", path, json={"Name": f"Airline {carrier}"})
            if answer.status >= 300:
                raise UnavailableError(
                    f"the Salesforce stand-in refused an account: status {answer.status}", code="demo.crm"
                )
    finally:
        await client.close()


async def closed(stage: Stage, expected: Mapping[str, int]) -> dict[str, list[PartitionCheck]]:
    """The ledgers, once the last commits have arrived."""
    deadline = time.monotonic() + 15.0
    while True:
        checks = await asyncio.gather(
            *(asyncio.to_thread(reconcile, stage.kafka, stage.names, pipeline) for pipeline in expected)
        )
        found = dict(zip(expected, checks, strict=True))
        complete = all(sum(one.read for one in found[name]) >= wanted for name, wanted in expected.items())
        if complete or time.monotonic() > deadline:
            return found
        await asyncio.sleep(0.5)


async def dead_letters(stage: Stage) -> dict[str, list[DeadLetter]]:
    """The dead letters of every pipeline, and of the sources what they have in quarantine."""

    def read(pipeline: str) -> list[DeadLetter]:
        return list(Redrive(stage.kafka, stage.names, pipeline).letters())

    pipelines = (*SOURCES, STREAM, *SINKS)
    found = await asyncio.gather(*(asyncio.to_thread(read, pipeline) for pipeline in pipelines))
    return dict(zip(pipelines, found, strict=True))


async def traced(stage: Stage, correlation: str) -> list[Hop]:
    """The way of one event, once the last hop is written."""
    deadline = time.monotonic() + 10.0
    while True:
        hops = await asyncio.to_thread(find_hops, stage.kafka, stage.names.trace, correlation)
        if {hop.pipeline for hop in hops} >= set(SINKS) or time.monotonic() > deadline:
            return hops
        await asyncio.sleep(0.5)
