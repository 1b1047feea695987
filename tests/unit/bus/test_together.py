"""What hundreds ask at once is asked once, and nobody gets an answer that was asked for before it came."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from trunkline.bus.together import Together


def test_who_comes_while_a_question_is_under_way_shares_the_next_one() -> None:
    asked, begun, go_on = [0], threading.Event(), threading.Event()

    def ask() -> int:
        asked[0] += 1
        mine = asked[0]
        begun.set()
        assert go_on.wait(30)
        return mine

    together = Together(ask)
    with ThreadPoolExecutor(10) as threads:
        first = threads.submit(together)
        assert begun.wait(30)
        others = [threads.submit(together) for _ in range(9)]
        while together._next is None:
            pass
        go_on.set()
        assert first.result(30) == 1
        answers = [other.result(30) for other in others]
    assert min(answers) >= 2, "older than who asked"
    assert together() == asked[0] > max(answers)


def test_what_asking_raises_is_raised_to_all_and_the_next_question_is_another_one() -> None:
    answers = iter([ValueError("away"), 7])

    def ask() -> int:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    together = Together(ask)
    with pytest.raises(ValueError, match="away"):
        together()
    assert together() == 7
