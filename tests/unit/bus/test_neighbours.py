"""What a worker hears of the others: who has which partitions, and who tells of what nobody has."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import orjson
import pytest

from tests.clock import Clock
from trunkline.bus.states import State
from trunkline.bus.worker.board import HEARTBEAT_KEY, STALE_SECONDS, VERSION, Report
from trunkline.bus.worker.neighbours import Neighbours


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def near(clock: Clock) -> Neighbours:
    return Neighbours("m", clock)


def report(worker: str, **more: Any) -> Report:
    positions = {"orders/0": 7, "a.b/1": 9}
    plain = Report("out", "Sink", worker, State.RUNNING, 0.0, time.time(), positions=positions, holding=True)
    return replace(plain, **more)


def hear(near: Neighbours, said: Report) -> None:
    near.heard(f"out/{said.worker}", orjson.dumps({"v": VERSION, **said.as_dict()}), 0)


async def test_the_partitions_of_others_are_those_that_they_have_and_not_those_that_they_had(near: Neighbours) -> None:
    hear(near, report("z"))
    assert near.partitions("out") == {("orders", 0), ("a.b", 1)}
    assert await near.run("out")
    hear(near, report("z", holding=False))
    assert near.partitions("out") == set()
    assert near.partitions("other") == set()
    assert not await near.run("other")


def test_of_several_one_speaks_for_what_nobody_has(near: Neighbours) -> None:
    assert near.speaks_for("out")
    hear(near, report("z"))
    assert near.speaks_for("out")
    hear(near, report("a", state=State.STOPPED))
    assert not near.speaks_for("out")
    assert near.speaks_for("other"), "the other worker does not have that one"


def test_a_worker_that_lacks_what_a_pipeline_needs_speaks_for_it_only_where_no_other_has_it(near: Neighbours) -> None:
    assert near.speaks_for("out", has_it=False)
    hear(near, report("z"))
    assert not near.speaks_for("out", has_it=False)


def test_what_a_worker_wrote_itself_says_nothing_of_others(near: Neighbours) -> None:
    hear(near, report("m"))
    assert near.partitions("out") == set()
    near.heard("out", b'{"v": 1, "started_at": 5}', 0)
    assert near.speaks_for("out")


async def test_a_worker_that_left_or_is_silent_counts_no_more(near: Neighbours, clock: Clock) -> None:
    for leave in (
        lambda: hear(near, report("a", state=State.UNASSIGNED)),
        lambda: near.heard("out/a", None, 0),
        lambda: near.heard(f"{HEARTBEAT_KEY}a", None, 0),
        lambda: setattr(clock, "now", clock.now + STALE_SECONDS + 1),
    ):
        hear(near, report("a"))
        assert not near.speaks_for("out")
        leave()
        assert near.speaks_for("out")
        assert near.partitions("out") == set()
        assert not await near.run("out")


async def test_a_worker_whose_heart_beats_is_there_though_it_has_nothing_new_to_say(
    near: Neighbours, clock: Clock
) -> None:
    hear(near, report("a"))
    for _ in range(10):
        clock.now += 2
        near.heard(f"{HEARTBEAT_KEY}a", b"{}", 0)
    assert await near.run("out")
    clock.now += STALE_SECONDS + 1
    assert not await near.run("out")


def test_what_was_said_before_counts_by_its_age_or_by_its_workers_heartbeat(near: Neighbours) -> None:
    old = time.time() - STALE_SECONDS - 5
    near.begin([report("a", at=old), report("b", at=time.time() - 1), report("c", at=old, heard_at=time.time() - 1)])
    assert not near.speaks_for("out")
    assert list(near._fresh("out")) == ["b", "c"]


def test_a_worker_of_another_version_is_there(near: Neighbours) -> None:
    near.heard("out/a", b'{"v": 99, "what": "nobody knows"}', 0)
    assert not near.speaks_for("out")
    assert near.partitions("out") == set()
