"""Counting what code does instead of how long it takes: a bound that holds on any machine, however busy."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class TooManyStepsError(BaseException):
    """Raised within the code that did too much. No `except Exception` holds it up."""


@contextmanager
def bounded_steps(most: int) -> Iterator[None]:
    """Raises AssertionError when what runs within makes more than `most` calls, of Python's functions and of C's.

    What a single call of C does counts for one: large texts and lists in it are bounded elsewhere, by their sizes.
    """
    left = [most]

    def profile(_frame: FrameType, event: str, _arg: object) -> None:
        if event in {"call", "c_call"}:
            left[0] -= 1
            if left[0] < 0:
                raise TooManyStepsError

    before = sys.getprofile()
    threading.setprofile(profile)
    sys.setprofile(profile)
    try:
        yield
    except TooManyStepsError:
        pass
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]
    assert left[0] >= 0, f"more than {most} calls"
