"""Calls that may never return: ended by a deadline, and the next one is made by another thread."""

from __future__ import annotations

import threading

import pytest
from confluent_kafka import KafkaError, KafkaException

from trunkline.bus.kafka import BoundedCalls, bounded


def test_a_call_is_made_and_what_it_raises_is_raised() -> None:
    calls, made = BoundedCalls("test"), []
    calls(made.append, 1, seconds=10)
    with pytest.raises(ZeroDivisionError):
        calls(lambda: 1 // 0, seconds=10)
    calls(made.append, 2, seconds=10)
    calls.close()
    assert made == [1, 2]


def test_whoever_is_done_leaves_no_thread() -> None:
    with BoundedCalls("done") as calls:
        calls(list, seconds=10)
        [thread] = [thread for thread in threading.enumerate() if thread.name == "done"]
    thread.join(10)
    assert not thread.is_alive()


def test_a_call_that_does_not_return_is_given_up_and_the_next_one_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "GRACE_SECONDS", 0.0)
    calls, free, made = BoundedCalls("test"), threading.Event(), []
    with pytest.raises(KafkaException) as raised:
        calls(free.wait, seconds=0.05)
    assert raised.value.args[0].code() == KafkaError._TIMED_OUT
    calls(made.append, 1, seconds=10)
    assert made == [1]
    free.set()
    calls.close()
    for thread in threading.enumerate():
        if thread.name == "test":
            thread.join(10)
            assert not thread.is_alive()
