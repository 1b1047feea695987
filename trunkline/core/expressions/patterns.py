"""`matches`: regular expressions of RE2, whose time is linear in the text whatever the pattern."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]

from trunkline.core.expressions.limits import MAX_PATTERN
from trunkline.core.expressions.values import CelError, no_overload

_OPTIONS = re2.Options()
_OPTIONS.log_errors = False
_OPTIONS.never_capture = True
_OPTIONS.max_mem = 1 << 20  # bytes a pattern: repetitions such as (a{999}){999} are refused instead of expanded


def matches(text: Any, pattern: Any) -> bool:
    """Whether `pattern` matches anywhere in `text`. Raises `CelError` for a bad pattern."""
    if type(text) is not str or type(pattern) is not str:
        raise no_overload("matches", text, pattern)
    return compiled(pattern).search(text) is not None


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
