"""One number for a worker's memory, divided among its queues."""

from __future__ import annotations

import pytest

from trunkline.bus.memory import BASE, LARGEST_RECORD, MIB, OF_A_PIPELINE, Shares, divide
from trunkline.bus.source.ingress import Bodies, NoRoomError, Taken


@pytest.mark.parametrize("memory", [512 * MIB, 1024 * MIB, 4096 * MIB])
@pytest.mark.parametrize("each", [1, 2, 5])
def test_what_all_queues_may_hold_together_is_no_more_than_the_memory(memory: int, each: int) -> None:
    shares = divide(memory, readers=2 * each, sinks=each, writers=2 * each)
    unsent = 0 if shares.unsent == LARGEST_RECORD else 2 * each * shares.unsent
    most = 2 * each * shares.fetched + unsent + 4 * each * shares.held + 2 * shares.bodies
    assert BASE + 4 * each * OF_A_PIPELINE + most <= memory


def test_with_room_enough_a_single_pipeline_has_all_that_it_can_use() -> None:
    assert divide(16 * 1024 * MIB, readers=1, sinks=1, writers=1) == Shares()


def test_more_pipelines_have_smaller_shares_and_a_producer_always_has_room_for_the_largest_record() -> None:
    few, many = (divide(512 * MIB, readers=count, sinks=count, writers=count) for count in (4, 100))
    assert (few.fetched > many.fetched, few.held > many.held) == (True, True)
    assert many.unsent == LARGEST_RECORD
    assert min(many.fetched, many.held, many.bodies) > 0


def test_a_body_for_which_there_is_no_room_is_refused_and_the_room_comes_back() -> None:
    bodies = Bodies(100)
    first, second = Taken(bodies), Taken(bodies)
    first.take(60)
    with pytest.raises(NoRoomError):
        second.take(50)
    first.give_back()
    second.take(50)
    assert bodies.held == 50
