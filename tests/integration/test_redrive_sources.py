"""What a source has in quarantine goes through that source again: cast, routed and encoded, under the id it had."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bus_harness import Bus, bus, text_headers, topic_manifest, unframed
from conftest import KafkaUnderTest

from trunkline.bus.deadletters import DeadLetter
from trunkline.bus.kafka import end_offsets
from trunkline.bus.redrive.edits import Edit
from trunkline.bus.redrive.jobs import Job, JobLog, JobRecords, JobState, RedriveOrder
from trunkline.bus.redrive.transactions import Redrive

pytestmark = pytest.mark.kafka
GOOD = {"id": 1, "customer": "c1", "amount": 5}
ROWS = [GOOD, {"id": "two", "customer": "c2", "amount": 6}, {"id": 3, "customer": "c3"}]


@pytest_asyncio.fixture
async def made(kafka: KafkaUnderTest, tmp_path: Path) -> AsyncIterator[Bus]:
    async with bus(kafka.bootstrap, tmp_path / "home") as made:
        rows = tmp_path / "orders.jsonl"
        rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
        await made.start(
            topic_manifest(made.name("in"), 2)
            + f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: orders}}
spec:
  connector: file
  config: {{path: "{rows}", format: jsonl, watch: false}}
  to: {{topic: "{made.name("in")}", key: event.customer}}
"""
        )
        yield made


async def _redriven(made: Bus, **asked: Any) -> Job:
    ends = await asyncio.to_thread(end_offsets, made.settings, made.names.dead_letters("orders"))
    order = RedriveOrder(**asked, ends={str(partition): end for partition, end in ends.items()})
    job = Job(uuid.uuid4().hex[:12], "orders", "ann", time.time(), order)
    await asyncio.to_thread(JobRecords(made.names).create, made.settings, job, 0)

    async def rests() -> Job | None:
        now = (await asyncio.to_thread(JobLog.read, made.settings, made.names)).job(job.id)
        return now if now.ended or now.progress.state is JobState.FAILED else None

    found: Job = await made.until(rests, "the job ended")
    return found


async def test_quarantine_that_was_mended_becomes_records_of_the_sources_topic_under_the_ids_it_had(made: Bus) -> None:
    await made.until(lambda: made.counts("orders").get("read") == 3, "all read")
    letters = {letter.header("ce_id"): letter for letter in await made.dead_letters("orders")}
    assert len(letters) == 2

    def place(text: bytes) -> DeadLetter:
        return next(letter for letter in letters.values() if text in (letter.value or b""))

    as_it_is = await _redriven(made)
    assert (as_it_is.progress.sent, as_it_is.progress.refused, as_it_is.progress.state) == (0, 2, JobState.DONE)
    wrong = await _redriven(made, places=(place(b"two").place,), edit=Edit(set={"id": "dyn('2.5')"}).as_dict())
    assert (wrong.progress.state, wrong.progress.code) == (JobState.FAILED, "edit.refused")
    assert "id" in (wrong.progress.reason or "")
    mended = await _redriven(made, places=(place(b"two").place,), edit=Edit(set={"id": "2"}).as_dict())
    assert mended.progress.sent == 1
    whole = await _redriven(made, edit=Edit({"id": 3, "customer": "c3", "amount": 9}).as_dict())
    assert whole.progress.sent == 1

    found = {unframed(message.value() or b"")["id"]: message for message in await made.read(made.name("in"))}
    assert sorted(found) == [1, 2, 3]
    for number, text in ((2, b"two"), (3, b'"c3"')):
        headers, letter = text_headers(found[number]), place(text)
        assert headers["ce_id"] == letter.header("ce_id")
        assert headers["ce_correlationid"] == letter.header("ce_correlationid")
        assert headers["ce_type"] == letter.header("ce_type")
        assert found[number].key() == f"c{number}".encode()
        assert not any(name.startswith(("trunkline.", "__connect")) for name in headers)
    assert await asyncio.to_thread(Redrive(made.settings, made.names, "orders").waiting) == []
