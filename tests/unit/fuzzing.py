"""What the fuzz tests share.

`make test` runs their short form. `TRUNKLINE_TEST_FUZZ=200000` makes it a long one, of so many examples each. What a run finds is kept in
`fuzzing_corpus.py` and tried for ever.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("TRUNKLINE_TEST_FUZZ", "20"))
FUZZ = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=EXAMPLES <= 100,
    suppress_health_check=list(HealthCheck),
)
STEPS = 3_000_000
"""Calls that one expression, template or manifest may make."""
LONGEST = 600
"""Characters of a message, whatever it is about."""


def is_short(said: object) -> None:
    """Fails for a message that repeats what it was given."""
    assert len(str(said)) < LONGEST
