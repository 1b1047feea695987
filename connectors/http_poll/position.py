"""Where polling stands: what earlier sweeps reached, and how far the sweep under way has come.

A sweep is one run through all pages. What it asks for stays the same until its end, or pages would shift under it; so the
greatest value found is kept beside, and counts only after the last page.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Any

from trunkline.core.contracts import Position
from trunkline.core.envelope import parse_time
from trunkline.core.errors import FatalError

MAX_SEEN = 10_000
"""Items that a position remembers: 8 bytes each, so that it stays far below a Kafka record's limit."""

_DIGEST = 8
_VERSION = 1
_TIME = re.compile(r"\d{4}-\d\d-\d\d")

Order = tuple[str, Any]
"""A value made comparable, with the name of the way: values of two ways can't be compared."""


@dataclass(slots=True)
class Sweep:
    """The run through the pages that is under way. `page` is the paging's own; None before the first page.

    `size` is how many items a full page holds, where no setting says it and it was found out. Until then `first` are the digests of
    the first page's items, and `again` says that this page is to be read once more.
    """

    page: Any = None
    pages: int = 0
    high: Any = None
    seen: set[bytes] = field(default_factory=set)
    refused: set[bytes] = field(default_factory=set)
    size: int | None = None
    first: set[bytes] = field(default_factory=set)
    again: bool = False


@dataclass(slots=True)
class Standing:
    """A position as an object.

    `cursor` is the greatest value of finished sweeps and `seen` the digests of the items at that value (or, without a cursor, of
    the last sweep's items); `etag` and `modified` belong to an answer to the very same question.
    """

    cursor: Any = None
    seen: set[bytes] = field(default_factory=set)
    etag: str | None = None
    modified: str | None = None
    sweep: Sweep | None = None

    @classmethod
    def from_position(cls, position: Position | None) -> Standing:
        """Raises `FatalError` for a position that a newer version wrote."""
        if position is None:
            return cls()
        if position.get("v", 0) > _VERSION:
            raise FatalError("the position was written by a newer version", hint="upgrade, or reset the position")
        sweep = position.get("sweep")
        return cls(
            cursor=position.get("cursor"),
            seen=_unpacked(position.get("seen", "")),
            etag=position.get("etag"),
            modified=position.get("modified"),
            sweep=None
            if sweep is None
            else Sweep(
                page=sweep.get("page"),
                pages=sweep.get("pages", 0),
                high=sweep.get("high"),
                seen=_unpacked(sweep.get("seen", "")),
                refused=_unpacked(sweep.get("refused", "")),
                size=sweep.get("size", 0),  # a sweep that an earlier version began goes on until a page is empty
                first=_unpacked(sweep.get("first", "")),
                again=sweep.get("again", False),
            ),
        )

    def to_position(self) -> Position:
        """The position, JSON-able. Raises `FatalError` when more items share a value than it can hold."""
        position: Position = {"v": _VERSION, "cursor": self.cursor, "seen": _packed(self.seen)}
        if self.etag is not None:
            position["etag"] = self.etag
        if self.modified is not None:
            position["modified"] = self.modified
        if self.sweep is not None:
            position["sweep"] = {
                "page": self.sweep.page,
                "pages": self.sweep.pages,
                "high": self.sweep.high,
                "seen": _packed(self.sweep.seen),
                "refused": _packed(self.sweep.refused),
                "size": self.sweep.size,
                "first": _packed(self.sweep.first),
                "again": self.sweep.again,
            }
        return position


def digest(content: bytes) -> bytes:
    """What stands for an item in a position."""
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()


def ordered(value: Any, way: str) -> Order | None:
    """`value` made comparable in the `way` of the settings, or None when it can't be."""
    if isinstance(value, bool) or value is None:
        return None
    if way == "number" or (way == "auto" and isinstance(value, (int, float))):
        try:
            number = Decimal(str(value))
        except InvalidOperation:
            return None
        return ("number", number) if number.is_finite() else None
    if not isinstance(value, str):
        return None
    if way == "time" or (way == "auto" and _TIME.match(value)):
        moment: datetime | None = parse_time(value)
        if moment is not None:
            return ("time", moment)
        if way == "time":
            return None
    return ("text", value)


def _packed(digests: Iterable[bytes]) -> str:
    found = sorted(digests)
    if len(found) > MAX_SEEN:
        raise FatalError(
            f"more than {MAX_SEEN} items would have to be remembered",
            hint="use a finer `incremental.field`, or `emit: all`",
            code="http_poll.too_many",
        )
    return base64.b64encode(b"".join(found)).decode("ascii")


def _unpacked(text: str) -> set[bytes]:
    joined = base64.b64decode(text)
    return {joined[start : start + _DIGEST] for start in range(0, len(joined), _DIGEST)}
