"""What the demo shows in the end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from trunkline.bus import deadletters
from trunkline.bus.ledger import OUTCOMES
from trunkline.cli.demo.checks import Check
from trunkline.cli.demo.play import CRM, Played
from trunkline.cli.demo.stage import Stage
from trunkline.cli.demo.view import retries
from trunkline.cli.output import Output


def show(out: Output, stage: Stage, played: Played, checks: Sequence[Check]) -> None:
    """Prints the whole report."""
    _counts(out, stage, played)
    _dead_letters(out, played)
    _redrive(out, played)
    _trace(out, played)
    _arrivals(out, stage)
    _checks(out, checks)


def _title(out: Output, text: str) -> None:
    out.line(f"\n{text}\n{'─' * len(text)}")


def _table(out: Output, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    out.table(columns, rows, None)


def _counts(out: Output, stage: Stage, played: Played) -> None:
    _title(out, "Counts: read = delivered + filtered + dead, for every pipeline")
    rows: list[Sequence[Any]] = []
    for report in stage.worker.reports:
        checks = played.ledgers.get(report.pipeline)
        if checks is None:
            counts = dict(report.counts)
            closes = counts.get("read", 0) == sum(counts.get(name, 0) for name in ("delivered", "filtered", "dead"))
        else:
            counts = {name: sum(one.outcomes[name] for one in checks) for name in OUTCOMES}
            counts["read"] = sum(one.read for one in checks)
            closes = all(one.closes for one in checks)
        parts = [counts.get(name, 0) for name in ("read", "delivered", "filtered", "dead")]
        rows.append((report.pipeline, *parts, retries(report.pipeline) or "", "closes" if closes else "OPEN"))
    _table(out, ("PIPELINE", "READ", "DELIVERED", "FILTERED", "DEAD", "RETRIES", "LEDGER"), rows)


def _dead_letters(out: Output, played: Played) -> None:
    _title(out, "Dead letters and quarantine")
    rows = []
    for pipeline, letters in played.dead.items():
        for letter in letters:
            topic, partition, offset = letter.origin
            place = letter.header(deadletters.PLACE) or f"{topic}[{partition}]@{offset}"
            rows.append((pipeline, _last(place), letter.header(deadletters.MESSAGE)))
    _table(out, ("PIPELINE", "WHERE", "REASON"), rows)


def _last(place: str) -> str:
    """A file's name without its folders."""
    return place.rsplit("/", 1)[-1] if place.startswith("/") and ":" in place and " " not in place else place


def _redrive(out: Output, played: Played) -> None:
    _title(out, "Redrive")
    for letter in played.redriven:
        key = (letter.key or b"").decode()
        out.line(
            f"{key}: dead letter of {CRM}, sent again after the airline's account was made, delivered to that sink only"
        )


def _trace(out: Output, played: Played) -> None:
    first = played.hops[0].correlation_id if played.hops else "nothing found"
    _title(out, f"One event's way: {first}")
    rows = [
        (_time(hop.at), hop.kind, hop.pipeline, f"{hop.topic}[{hop.partition}]@{hop.offset}", hop.outcome, hop.detail)
        for hop in played.hops
    ]
    _table(out, ("TIME", "KIND", "PIPELINE", "READ FROM", "OUTCOME", "REFERENCE"), rows)


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%H:%M:%S.%f")[:-3]


def _arrivals(out: Output, stage: Stage) -> None:
    _title(out, "What arrived")
    mocks = stage.mocks
    for name, records in mocks["salesforce"].contents().items():
        key = "Flight_Key__c" if name == "Flight__c" else "Name"
        out.line(f"salesforce     {len(records):>4} {name} records, such as {records[-1]['Id']} {records[-1][key]}")
    files = [one for one in mocks["sftp"].contents() if one["path"].endswith(".csv")]
    out.line(f"sftp           {len(files):>4} files, {sum(one['size'] for one in files)} bytes:")
    for one in files[:5]:
        out.line(f"                    {one['path']}  {one['size']} bytes  sha256 {one['sha256'][:12]}…")
    _more(out, len(files) - 5)
    rows = mocks["google_sheets"].contents().get("Delayed", [])
    last = ", ".join(str(cell) for cell in rows[-1]) if rows else ""
    out.line(f"google_sheets  {max(len(rows) - 1, 0):>4} rows, the last one: {last}")
    out.line(
        f"http           {stage.partner.effects.total():>4} requests taken, {stage.partner.refused} refused while it was down"
    )
    messages = mocks["slack"].contents()
    out.line(f"slack          {len(messages):>4} messages:")
    for message in messages[:3]:
        out.line(f"                    #{message['channel']}: {message['text']}")
    _more(out, len(messages) - 3)


def _more(out: Output, count: int) -> None:
    if count > 0:
        out.line(f"                    … and {count} more")


def _checks(out: Output, checks: Sequence[Check]) -> None:
    _title(out, "Checks")
    _table(out, ("", "PROMISE", "FOUND"), [("OK" if one.holds else "FAIL", one.promise, one.found) for one in checks])
