"""Row 23: cells that would compute, texts that would reach Python, texts that would never end."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import structlog

from sinks.google_sheets.mock import GoogleSheetsMock, GoogleSheetsMockSettings
from sinks.google_sheets.settings import GoogleSheetsConnection, GoogleSheetsSettings
from sinks.google_sheets.sink import GoogleSheetsSink
from tests.chaos.campaign import Run, row
from tests.chaos.faults.child import in_child
from tests.unit.sinks.hostile_texts import CELLS, FORMULAS
from trunkline.core.contracts import Batch, PluginContext
from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.event import Event
from trunkline.core.formats import CsvFormat, render
from trunkline.core.http import HttpOptions
from trunkline.core.secret import Secret
from trunkline.core.verdicts import Ok

CHILD = "tests.chaos.faults.hostile_texts"
MOST_SECONDS = 1.0
SCHEMA = SimpleNamespace(
    id=1, name="Note", json={"type": "record", "name": "Note", "fields": [{"name": "note", "type": "string"}]}
)
LIVE = tuple("=+-@\t\r\n ＝＋－＠")
"""What a cell must not begin with, where a spreadsheet opens the file."""


@row(
    23,
    "formulas, escapes, bombs of work",
    load="{formulas} formulas to a spreadsheet and a guarded CSV file",
    fault="{escapes} expression and template escapes, {bombs} YAML and CPU bombs",
    full={"formulas": 200, "escapes": 1000, "bombs": 1000},
    short={"formulas": 200, "escapes": 300, "bombs": 20},
    minutes=4,
)
async def hostile_texts(run: Run) -> None:
    """No formula is live, no text is executed, and none takes longer than a second of the processor."""
    await _spreadsheet(run)
    _file(run)
    grown = await in_child(CHILD, {"seed": run.seed, "escapes": run["escapes"], "bombs": run["bombs"]})
    run.claim(grown.answer is not None, f"the process ended by {grown.ended}: {grown.errors}")
    found: dict[str, Any] = grown.answer or {"broken": [], "executed": [], "escapes": 0, "bombs": 0, "seconds": 0.0}
    run.claim(not found["broken"], f"took effect: {found['broken']}")
    run.claim(not found["executed"], f"reached Python: {found['executed']}")
    if run.full:
        run.claim(found["seconds"] <= MOST_SECONDS, f"{found.get('case')!r} took {found['seconds']} s")
    run.fires({"escapes": found["escapes"], "bombs": found["bombs"]})
    run.must_fire("formulas", run["formulas"] + len(CELLS))
    run.must_fire("escapes", 300)
    run.must_fire("bombs", 20)
    run.note("slowest, in CPU seconds", f"{found['seconds']} ({found.get('case', '')[:40]!r})")
    run.note("memory grew by", f"{found.get('MiB', 0)} MiB")


async def _spreadsheet(run: Run) -> None:
    """Appended and upserted: they are in the cells as texts, and none is live."""
    key_file = run.folder / "key.json"
    sheets = GoogleSheetsMock(GoogleSheetsMockSettings(key_file=key_file, worksheets=["Sheet1", "other"]))
    await sheets.start()
    try:
        secret = Secret.of(sheets.environment["GOOGLE_SHEETS_KEY"])
        connection = GoogleSheetsConnection(
            service_account=secret, base_url=sheets.url, http=HttpOptions(allow_private=["127.0.0.1"])
        )
        texts = [*FORMULAS[: run["formulas"]], *CELLS]
        columns = {"Id": "event.id", "Note": "event.note"}
        for worksheet, mode in (("Sheet1", {}), ("other", {"mode": "upsert", "key": "Id"})):
            given = {"spreadsheet": "mock-spreadsheet", "worksheet": worksheet, "columns": columns, **mode}
            sink = GoogleSheetsSink(GoogleSheetsSettings.model_validate(given), connection)
            await sink.open(PluginContext("chaos", "to-sheets", Path(), structlog.get_logger()))
            verdicts = await sink.write(Batch([_event(n, text) for n, text in enumerate(texts)]))
            await sink.close()
            run.claim(all(isinstance(one, Ok) for one in verdicts), f"{worksheet}: not all formulas were taken")
            found = [cells[1] for cells in sheets.contents()[worksheet][1:]]
            run.claim(found == texts, f"{worksheet}: {len(found)} cells, not as they were sent")
        run.claim(sheets.formulas() == [], f"live formulas: {sheets.formulas()[:5]}")
        run.fires({"formulas": len(texts)})
    finally:
        await sheets.stop()


def _file(run: Run) -> None:
    """In a CSV file that is guarded, no cell begins as a formula does."""
    texts = [*FORMULAS, *CELLS]
    events = [Event({"note": text}, schema=SCHEMA, topic="t", offset=n) for n, text in enumerate(texts)]
    content = render(events, CsvFormat(guard_formulas=True), "r").content
    cells = [cells[0] for cells in csv.reader(io.StringIO(content.decode(), newline=""))][1:]
    run.claim(len(cells) == len(texts), f"{len(cells)} rows of {len(texts)}")
    live = [cell for cell in cells if cell.startswith(LIVE)]
    run.claim(not live, f"live cells in a guarded file: {live[:5]}")


def _event(number: int, text: str) -> Event:
    envelope = Envelope(f"id-{number}", "/chaos", "note", correlation_id=f"corr-{number}")
    event = Event({"id": f"n{number}", "note": text}, headers=envelope_to_headers(envelope))
    event.idempotency_key = f"idem-{number}"
    return event
