"""Every error that Trunkline raises on purpose, grouped by what the caller does about it.

* `ConfigurationError`: someone has to change a manifest, a setting or an argument. Exit code 2.
* `UnavailableError`: something around us is missing or down (a broker, a file system, Java). Exit code 3.
* `FatalError`: the pipeline stops with the reason and holds its offsets (a 401, a closed account). Exit code 3.
* `HaltError`: a fatal one after which only a person starts the pipeline again (too many dead letters).
* `DefectError`: a fatal one that only other code mends (a plug-in that raises what it should not).
* `RetriableError`: the same call may succeed later, `after` seconds at the earliest.
* `BackpressureError`: slow down; nothing has failed.
* `RejectedError`: this record is bad and no retry mends it. It becomes a dead letter.
* `CheckFailedError`: a check ran and found something. Exit code 1.
* `ConflictError`: what a change was made for has moved meanwhile. Exit code 1.

Each carries a stable dotted `code`, and where it is known `where` (file, line, field, or topic, partition, offset) and a
`hint` that says what to do. Wrap or log, never both.
"""

from __future__ import annotations

import difflib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from trunkline.core.redaction import redact


class TrunklineError(Exception):
    """Base of all errors raised on purpose.

    `message` says what was wrong, `where` points at the place, `hint` says what to do, `code` is stable and dotted. The texts hold no
    secret that this process knows: they are redacted here, so that whoever shows an error need not think of it.
    """

    code = "internal"
    exit_code = 3

    def __init__(
        self, message: str, *, where: str | None = None, hint: str | None = None, code: str | None = None
    ) -> None:
        message = redact(message)
        super().__init__(message)
        self.message = message
        self.where = redact(where) if where else where
        self.hint = redact(hint) if hint else hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text} ({self.hint})" if self.hint else text

    def as_dict(self) -> dict[str, Any]:
        """The error as data, for `-o json` and API answers."""
        parts: dict[str, Any] = {"code": self.code, "message": self.message, "where": self.where, "hint": self.hint}
        return {name: value for name, value in parts.items() if value is not None}


class ConfigurationError(TrunklineError):
    """Someone has to change a manifest, a setting or an argument."""

    code = "config.invalid"
    exit_code = 2


class UnavailableError(TrunklineError):
    """Something around us is missing or down: a broker, a registry, Java, a disk."""

    code = "environment.unavailable"
    exit_code = 3


class FatalError(TrunklineError):
    """The pipeline must stop with this reason and hold its offsets: bad credentials, a closed account, a fenced producer."""

    code = "pipeline.fatal"
    exit_code = 3


class HaltError(FatalError):
    """As `FatalError`, and the pipeline is not started again by itself: a person has to look first."""

    code = "pipeline.halted"


class DefectError(FatalError):
    """As `FatalError`, and nothing outside is at fault: the code is, and trying again soon would only do the same again."""

    code = "code.broken"


class RetriableError(TrunklineError):
    """The same call may succeed later; `after` is the least wait in seconds, where the other side named one.

    `limit` is which of its limits is used up, as the other side calls it, where that is the reason.
    """

    code = "call.retriable"
    exit_code = 3

    def __init__(
        self,
        message: str,
        *,
        after: float | None = None,
        where: str | None = None,
        hint: str | None = None,
        code: str | None = None,
        limit: str | None = None,
    ) -> None:
        super().__init__(message, where=where, hint=hint, code=code)
        self.after = after
        self.limit = limit


class BackpressureError(RetriableError):
    """Nothing failed, but the other side asks to slow down for `after` seconds."""

    code = "call.backpressure"


class RejectedError(TrunklineError):
    """This record is bad and no retry mends it: it becomes a dead letter with this reason."""

    code = "record.rejected"
    exit_code = 1


class CheckFailedError(TrunklineError):
    """A check ran to its end and found something: a ledger that does not close, a schema that breaks its readers."""

    code = "check.failed"
    exit_code = 1


class ConflictError(TrunklineError):
    """Somebody else changed meanwhile what this change was made for, so it was not made. As HTTP's 409.

    `moved` has for each key who changed it when (Unix seconds), and the fields in which it differs from what the caller saw.
    """

    code = "change.conflict"
    exit_code = 1

    def __init__(
        self, message: str, *, moved: Sequence[Mapping[str, Any]], where: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, where=where, hint=hint)
        self.moved = list(moved)

    def as_dict(self) -> dict[str, Any]:
        """The error as data, with what moved."""
        return {**super().as_dict(), "moved": self.moved}


def code_from(told: str, otherwise: str) -> str:
    """What another system calls an error, as a part of a code; `otherwise` for what is no name, or holds a secret.

    Codes stand in headers and metrics, and are never redacted.
    """
    name = told.lower()
    plain = len(name) <= 60 and name.isascii() and name.replace("_", "").isalnum()
    return name if plain and redact(told) is told else otherwise


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """The candidate that was most likely meant by `name`, or None when nothing is near. Nobody means a name that is very long."""
    size = len(name)
    if size > _LONGEST_MEANT:
        return None
    # Lengths that differ by more can't be alike enough. Comparing two texts takes the product of their lengths, so of very many, as
    # the topics of a large cluster are, those are compared that begin and end most like it.
    alike = [
        each
        for each in candidates
        if size * _NEAR <= len(each) * (2 - _NEAR) and len(each) * _NEAR <= size * (2 - _NEAR)
    ]
    if len(alike) > _MOST_COMPARED:
        alike = heapq.nlargest(_MOST_COMPARED, alike, key=lambda each: _same_ends(name, each))
    matches = difflib.get_close_matches(name, alike, n=1, cutoff=_NEAR)
    return matches[0] if matches else None


def _same_ends(one: str, other: str) -> int:
    """How many characters both texts begin and end with, together."""
    return _same_start(one, other) + _same_start(one[::-1], other[::-1])


def _same_start(one: str, other: str) -> int:
    return next(
        (at for at, (mine, its) in enumerate(zip(one, other, strict=False)) if mine != its),
        len(min(one, other, key=len)),
    )


_NEAR = 0.6
_LONGEST_MEANT = 200
_MOST_COMPARED = 500


def did_you_mean(name: str, candidates: Iterable[str]) -> str:
    """A hint for an unknown `name`: the nearest valid one, else the list of all (the first twenty)."""
    known = sorted(candidates)
    close = nearest(name, known)
    if close is not None:
        return f"did you mean {close!r}?"
    return "known: " + ", ".join(known[:20]) if known else "none are known"
