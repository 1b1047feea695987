"""A plug-in of another package is judged by a worker once a trial has shown that judging it comes to an end."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.unit.bus.test_trial import TOPIC, installed
from trunkline.bus.worker.admission import Admission
from trunkline.bus.worker.trial import Trials
from trunkline.bus.worker.wanted import Wanted, judged
from trunkline.core.manifests.load import gather_text

__all__ = ["installed"]


def sink(name: str, connector: str, config: str = "{}") -> str:
    return (
        f"---\napiVersion: trunkline/v1\nkind: Sink\nmetadata: {{name: {name}}}\n"
        f"spec: {{from: orders, start: earliest, connector: {connector}, config: {config}}}\n"
    )


@pytest.mark.slow  # the process for trials is started twice
async def test_until_a_plug_in_is_tried_out_its_pipeline_is_pending_and_no_other_is(installed: Path) -> None:
    text = TOPIC + sink("ours", "file", "{folder: out, format: jsonl}")
    text += sink("theirs", "works") + sink("crashing", "dies_on_import") + sink("nowhere", "no_such_plug_in")
    trials, tried = Trials("test", seconds=20.0), asyncio.Semaphore(0)
    admission = Admission(trials, tried.release)
    admission.begin()

    async def judge() -> Wanted:
        return await asyncio.to_thread(lambda: judged(gather_text(text), admission.admit))

    try:
        first = await judge()
        assert first.pending == {"theirs", "crashing"}
        assert set(first.project.pipelines) == {"ours"}
        assert set(first.unfit) == {"nowhere"}
        assert not {"acme_plugins", "acme_dies"} & sys.modules.keys(), "nothing of it was imported"
        for _ in range(2):
            await tried.acquire()
        second = await judge()
        assert not second.pending
        assert set(second.project.pipelines) == {"ours", "theirs"}
        assert second.unfit["crashing"].error.problems[0].code == "plugin.crashed"
    finally:
        admission.close()
        await trials.close()
