"""The environment of a process that runs one test, or one row of the campaign, after another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_PYTEST = "PYTEST_CURRENT_TEST"
"""Pytest sets and removes it itself, at its own times."""


@contextmanager
def environment_kept() -> Iterator[None]:
    """Afterwards the environment is as it was: what was set within is removed, what was changed or removed is back."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in {*before, *os.environ} - {_PYTEST}:
            if name not in before:
                del os.environ[name]
            elif os.environ.get(name) != before[name]:
                os.environ[name] = before[name]
