"""`matches`: regular expressions of RE2, whose time is linear in the text whatever the pattern.

It is linear in the pattern too, and a short one can be a large program: `a[ab]{900}c` takes 6 s to search a text of 1 MB. So the
product of both is bounded.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]

from trunkline.core.expressions.limits import MAX_PATTERN, MAX_STEPS
from trunkline.core.expressions.values import CelError, LimitError, no_overload

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.never_capture = True
_OPTIONS.max_mem = 1 << 20  # bytes a pattern: repetitions such as (a{999}){999} are refused instead of expanded


def matches(text: Any, pattern: Any) -> bool:
    """Whether `pattern` matches anywhere in `text`. Raises `CelError` for a bad pattern."""
    if type(text) is not str or type(pattern) is not str:
        raise no_overload("matches", text, pattern)
    return searched(text, compiled(pattern))


def searched(text: str, pattern: Any) -> bool:
    """Whether a compiled pattern matches anywhere. Raises `LimitError` for a text that is too long for it."""
    if steps(text, pattern) > MAX_STEPS:
        raise LimitError(
            f"the text has {len(text)} characters, and with this pattern at most {_most(text, pattern)} are searched: "
            "make the pattern simpler, or take a part of the text with substring()"
        )
    return pattern.search(text) is not None


def steps(text: str, pattern: Any) -> int:
    """What searching a text for a compiled pattern takes at worst, in instructions for a byte."""
    return (len(text) if text.isascii() else 4 * len(text)) * int(pattern.programsize)


def _most(text: str, pattern: Any) -> int:
    return most_characters(pattern) * (4 if text.isascii() else 1)


def most_characters(pattern: Any) -> int:
    """How long a text may be that is searched for a compiled pattern, whatever its characters are."""
    return int(MAX_STEPS // (4 * max(pattern.programsize, 1)))


@lru_cache(maxsize=128)
def compiled(pattern: str) -> Any:
    """The compiled pattern. Raises `CelError` for one that RE2 refuses, or that is too long or too large."""
    if len(pattern) > MAX_PATTERN:
        raise CelError(f"the pattern has more than {MAX_PATTERN} characters")
    try:
        return re2.compile(pattern, _OPTIONS)
    except re2.error as error:
        reason = error.args[0] if error.args else "bad pattern"
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise CelError(f"the pattern is refused: {text}") from None
