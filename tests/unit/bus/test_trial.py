"""What runs other people's code is tried out in a process of its own."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration import broken_plugins
from trunkline.bus.worker.trial import Trials, needs_trial
from trunkline.core import plugins
from trunkline.core.errors import FatalError, TrunklineError, UnavailableError
from trunkline.core.manifests import Project, load_text

TOPIC = """
apiVersion: trunkline/v1
kind: Topic
metadata: {name: orders}
spec: {schema: {type: record, name: Order, fields: [{name: id, type: string}]}}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {name: priced}
"""


def sink(connector: str) -> Project:
    return load_text(
        f"{TOPIC}\n---\napiVersion: trunkline/v1\nkind: Sink\nmetadata: {{name: out}}\n"
        f"spec: {{from: orders, start: earliest, connector: {connector}, config: {{}}}}\n"
    )


def python_step(folder: Path, code: str) -> Project:
    (folder / "price.py").write_text(code, encoding="utf-8")
    return load_text(
        f"{TOPIC}\n---\napiVersion: trunkline/v1\nkind: Stream\nmetadata: {{name: out}}\n"
        'spec: {from: orders, start: earliest, steps: [{python: "price:up"}], to: priced}\n',
        str(folder / "flow.yaml"),
    )


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = broken_plugins.install(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.syspath_prepend(folder)
    plugins._found.cache_clear()
    yield folder
    plugins._found.cache_clear()
    for name in [one for one in sys.modules if one.startswith("acme_")]:
        del sys.modules[name]


@pytest.fixture
async def trials() -> AsyncIterator[Trials]:
    made = Trials("test", seconds=3.0)
    yield made
    await made.close()


async def refused(trials: Trials, project: Project) -> TrunklineError:
    with pytest.raises(TrunklineError) as caught:
        await trials.attempt(project, project.pipelines["out"])
    return caught.value


async def test_what_broken_plug_ins_do_happens_in_the_trial_and_is_told(installed: Path, trials: Trials) -> None:
    await trials.attempt(sink("works"), sink("works").pipelines["out"])
    assert "KeyError: 'account'" in str(await refused(trials, sink("raises_in_open")))
    assert "KeyError: 'account'" in str(await refused(trials, sink("raises_in_close")))
    closed = await refused(trials, sink("fatal_in_open"))
    assert (type(closed), closed.code, closed.hint) == (FatalError, "acme.closed", "open another one")
    assert isinstance(await refused(trials, sink("away_in_open")), UnavailableError)
    assert "wrong password" in str(await refused(trials, sink("exits_in_open")))
    died = await refused(trials, sink("dies_in_open"))
    assert died.code == "plugin.crashed"
    assert "SIGABRT" in died.message


@pytest.mark.slow  # each is ended by a time-out, or ends its process
@pytest.mark.parametrize("name", ["waits_in_open", "blocks_in_open"])
async def test_what_does_not_come_back_is_ended(installed: Path, trials: Trials, name: str) -> None:
    await trials.attempt(sink("works"), sink("works").pipelines["out"])
    assert (await refused(trials, sink(name))).code == "plugin.slow"
    await trials.attempt(sink("works"), sink("works").pipelines["out"])


@pytest.mark.slow
async def test_one_that_blocks_has_its_whole_time_after_the_others_had_their_turn(installed: Path) -> None:
    trials = Trials("test", seconds=600.0)
    try:
        blocked = asyncio.create_task(trials.attempt(sink("blocks_in_open"), sink("blocks_in_open").pipelines["out"]))
        await asyncio.sleep(0)
        await trials.attempt(sink("works"), sink("works").pipelines["out"])
        assert not blocked.done()
        blocked.cancel()
        await asyncio.wait({blocked})
    finally:
        await trials.close()


@pytest.mark.slow
async def test_the_module_of_a_python_step_is_tried_out(tmp_path: Path, trials: Trials) -> None:
    good = python_step(tmp_path, "def up(value):\n    return value\n")
    assert needs_trial(good.pipelines["out"])
    await trials.attempt(good, good.pipelines["out"])
    assert (await refused(trials, python_step(tmp_path, "raise RuntimeError('no')\n"))).code == "python.import"
    assert (await refused(trials, python_step(tmp_path, "import os\nos._exit(7)\n"))).code == "plugin.crashed"
    assert (await refused(trials, python_step(tmp_path, "while True:\n    pass\n"))).code == "plugin.slow"


def test_what_comes_with_trunkline_is_not_tried_out(installed: Path) -> None:
    assert not needs_trial(sink("file").pipelines["out"])
    assert needs_trial(sink("works").pipelines["out"])


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("no_module", "plugin.missing_extra"),
        ("no_library", "plugin.missing_extra"),
        ("bad_syntax", "plugin.broken"),
        ("raises_on_import", "plugin.broken"),
        ("exits_on_import", "plugin.broken"),
        ("no_attribute", "plugin.broken"),
        ("no_plugin", "plugin.invalid"),
    ],
)
def test_a_plug_in_that_cannot_be_imported_is_named(installed: Path, name: str, code: str) -> None:
    with pytest.raises(TrunklineError, match=name) as caught:
        plugins.load_plugin("sink", name)
    assert caught.value.code == code
