"""The checks of the demo: what was promised, compared with what lies in every system at the end."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from trunkline.bus.deadletters import PLACE
from trunkline.bus.states import State
from trunkline.cli.demo.airline import correlation_id
from trunkline.cli.demo.flights import NEW_AIRLINE, Flights, key_of
from trunkline.cli.demo.play import CRM, POISON, SINKS, STREAM, Played, expected_reads
from trunkline.cli.demo.stage import Stage


@dataclass(frozen=True, slots=True)
class Check:
    """One promise, whether it holds, and what was found."""

    promise: str
    holds: bool
    found: str


def run_checks(stage: Stage, flights: Flights, played: Played) -> list[Check]:
    """Every check of the demo."""
    return [
        *_arrivals(stage, flights),
        *_doors(stage, flights, played),
        *_failures(stage, flights, played),
        *_books(stage, flights, played),
    ]


def _arrivals(stage: Stage, flights: Flights) -> Iterator[Check]:
    delayed, mocks = set(flights.delayed), stage.mocks
    records = mocks["salesforce"].contents().get("Flight__c", [])
    yield _same("every delayed flight is one Salesforce record", (one["Flight_Key__c"] for one in records), delayed)
    yield _same("every delayed flight is one row of the SFTP files", sftp_rows(stage), delayed)
    rows = mocks["google_sheets"].contents().get("Delayed", [])
    yield _same("every delayed flight is one row of the sheet", (str(row[0]) for row in rows[1:]), delayed)
    yield _same("every delayed flight reached the partner's API once", stage.partner.effects.elements(), delayed)
    messages = mocks["slack"].contents()
    kept = [one["metadata"]["event_payload"]["correlation_id"] for one in messages]
    yield Check(
        "every critical flight is one Slack message",
        len(messages) == len(flights.critical) == len(set(kept)),
        f"{len(messages)} messages for {len(flights.critical)} flights",
    )
    minutes = {key: value.get("minutes") for key, value in stage.partner.delays.items()}
    wrong = sum(minutes.get(key) != wanted for key, wanted in flights.delayed.items())
    yield Check("the minutes are those of the data", wrong == 0, f"{wrong} differ")


def _doors(stage: Stage, flights: Flights, played: Played) -> Iterator[Check]:
    answers = played.airline.answers
    # One that was answered 503 although it was kept gets 200 when it is posted again: that is accepted too.
    accepted, wanted = answers[202] + answers[200], len(flights.posts) + 2
    yield Check(
        "every signed post was accepted",
        accepted == wanted,
        f"{answers[202]} got 202, {answers[200]} got 200 as repeated, of {wanted}",
    )
    yield Check("a forged signature was refused", played.forged == 401, f"status {played.forged}")
    again = played.repeated == 200 and played.repeated_answer.get("duplicate") is True
    yield Check("a repeated post made no second event", again, f"status {played.repeated}")
    kept = {hop.correlation_id for hop in played.hops}
    traced = correlation_id(flights.traced)
    delivered = {hop.pipeline for hop in played.hops if hop.outcome == "delivered"}
    yield Check(
        "one correlation id leads from the post to all five sinks",
        delivered >= {"departures-webhook", STREAM, *SINKS} and kept == {traced},
        f"{traced}: delivered by {len(delivered)} pipelines",
    )
    sent = {one for one in stage.partner.correlations.values() if one.startswith("airline-")}
    posted = {correlation_id(number) for number, key in enumerate(_keys(flights.posts)) if key in flights.delayed}
    yield Check(
        "the airline's own ids went out with every request",
        sent == posted and all(stage.partner.correlations.values()),
        f"{len(sent)} of {len(posted)}",
    )


def _failures(stage: Stage, flights: Flights, played: Played) -> Iterator[Check]:
    places = [letter.header(PLACE) for letter in played.dead["departures-file"]]
    lines = sorted(int(place.rpartition(":")[2]) for place in places if place.rpartition(":")[2].isdigit())
    yield Check(
        "every bad row waits in quarantine with its line",
        tuple(lines) == flights.bad_lines,
        f"lines {', '.join(map(str, lines)) or 'none'}",
    )
    broken = played.dead["departures-webhook"]
    yield Check(
        "the post that is no departure waits in quarantine", played.broken == 202 and len(broken) == 1, f"{len(broken)}"
    )
    poisoned = played.dead[STREAM]
    same = [letter.value for letter in poisoned] == [POISON]
    yield Check("the poisoned record is a dead letter, byte for byte", same, f"{len(poisoned)} dead letters")
    refusals = stage.partner.refused
    yield Check("the partner's outage was real and cost nothing", refusals > 0, f"{refusals} requests refused")
    wrongly = stage.partner.forged
    yield Check("every request to the partner was signed rightly", wrongly == 0, f"{wrongly} signatures were wrong")
    letters, wanted = played.redriven, len(flights.of_new_airline)
    yield Check(
        f"the flights of {NEW_AIRLINE} were dead letters, with the CRM's reason",
        len(letters) == wanted > 0 and len(played.dead[CRM]) == wanted,
        f"{len(letters)} of {wanted}",
    )
    others = [name for name in SINKS if name != CRM and played.before_redrive[name] != played.after_redrive[name]]
    yield Check(
        "the redrive reached the CRM and no other system",
        played.sent == wanted
        and played.waiting == 0
        and not others
        and played.after_redrive[CRM] == played.before_redrive[CRM] + wanted,
        f"{played.sent} sent again, {played.waiting} left" + (f", also seen by {', '.join(others)}" if others else ""),
    )


def _books(stage: Stage, flights: Flights, played: Played) -> Iterator[Check]:
    expected = expected_reads(flights)
    expected[CRM] += played.sent
    for pipeline, wanted in expected.items():
        checks = played.ledgers[pipeline]
        read = sum(one.read for one in checks)
        problem = next((f"{one.topic}[{one.partition}]: {one.problem}" for one in checks if not one.closes), None)
        yield Check(
            f"the ledger of {pipeline} closes",
            problem is None and read == wanted,
            problem or f"{read} of {wanted} read",
        )
    for source, wanted, dead in (
        ("departures-file", flights.rows, len(flights.bad_lines)),
        ("departures-webhook", len(flights.posts), 1),
    ):
        counts = next((one.counts for one in stage.worker.reports if one.pipeline == source), {})
        found = (counts.get("read", 0), counts.get("delivered", 0), counts.get("dead", 0))
        yield Check(
            f"the ledger of {source} closes",
            found == (wanted + dead, wanted, dead),
            f"{found[0]} read, {found[1]} delivered, {found[2]} dead",
        )
    bad = [f"{one.pipeline}: {one.reason}" for one in stage.worker.reports if one.state is not State.RUNNING]
    finished = [one for one in bad if not one.startswith("departures-file")]
    yield Check("every pipeline runs", not finished, "; ".join(finished) or f"{len(stage.worker.reports)} pipelines")


def sftp_rows(stage: Stage) -> Iterator[str]:
    """The flights in the files on the SFTP server."""
    for file in sorted(stage.sftp_root.rglob("*.csv")):
        with file.open(encoding="utf-8", newline="") as text:
            for row in csv.DictReader(text):
                yield row["flight_key"]


def _keys(posts: Iterable[bytes]) -> Iterator[str]:
    for post in posts:
        yield key_of(json.loads(post))


def _same(promise: str, found: Iterable[str], wanted: set[str]) -> Check:
    counts = Counter(found)
    missing, more = len(wanted - set(counts)), len(set(counts) - wanted)
    twice = sum(1 for count in counts.values() if count > 1)
    parts = [f"{len(wanted) - missing} of {len(wanted)}"]
    parts += [f"{missing} missing"] if missing else []
    parts += [f"{more} that nobody sent"] if more else []
    parts += [f"{twice} more than once"] if twice else []
    return Check(promise, not (missing or more or twice), ", ".join(parts))
