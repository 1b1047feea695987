"""Work on the value alone: what lets the engine spare a record its `Event`, and the fields that nobody looks at.

Most steps look at nothing but fields of the value. One that says so (`Step.plain`) is run on the bare value, and where no step
and no target needs more than some fields, no others are decoded. Whatever goes wrong there is done again with the event, whole:
so `Step.process` stays the one that decides what an error is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, Literal

from trunkline.core.expressions import Expression


class Extent(Enum):
    """How much of an event is looked at, where it is more than some fields of its value."""

    VALUE = "value"
    EVENT = "event"


Reads = frozenset[str] | Extent
"""The fields of the value that are looked at, or that it is the whole value, or the event: headers, key, place, envelope."""
WHOLE_VALUE: Final = Extent.VALUE
WHOLE_EVENT: Final = Extent.EVENT


@dataclass(frozen=True, slots=True)
class PlainWork:
    """A step's work on a value, called as `run(value, None)`.

    Of a step that filters (`changes` is false), the event goes on where it returns True and is filtered where it does not. Of one
    that changes the value in place every event goes on. It does what the step's `process` does, and raises where that raises.
    """

    run: Callable[[Any, Any], Any]
    changes: bool
    reads: Reads = WHOLE_VALUE


def reads_of(expressions: Iterable[Expression]) -> Reads:
    """What expressions look at together."""
    names = {path for expression in expressions for path in expression.names}
    if any(path[0] != "event" for path in names):
        return WHOLE_EVENT
    if any(len(path) == 1 for path in names):
        return WHOLE_VALUE
    return frozenset(path[1] for path in names)


def together(parts: Iterable[Reads]) -> Reads:
    """What all of them look at."""
    fields: frozenset[str] = frozenset()
    value: Literal[Extent.VALUE] | None = None
    for part in parts:
        if part is WHOLE_EVENT:
            return WHOLE_EVENT
        if part is WHOLE_VALUE:
            value = WHOLE_VALUE
        elif not isinstance(part, Extent):
            fields |= part
    return value or fields
