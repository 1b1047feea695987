"""How items become events, and which of them were published before."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from connectors.http_poll.answer import at_path
from connectors.http_poll.position import Standing, Sweep, digest, ordered
from connectors.http_poll.settings import HttpPollSettings
from trunkline.core.contracts import RejectedInput, SourceEvent
from trunkline.core.envelope import correlation_from, parse_time
from trunkline.core.errors import RejectedError
from trunkline.core.jsonable import to_json_bytes
from trunkline.core.jsontext import any_json_bytes


class ItemReader:
    """Reads the items of pages by the settings."""

    def __init__(self, settings: HttpPollSettings) -> None:
        self._settings = settings

    def read(
        self, items: list[Any], standing: Standing, sweep: Sweep, request: str
    ) -> tuple[list[SourceEvent], list[RejectedInput]]:
        """The new events of a page and what can't become one; `sweep` learns what was found."""
        events: list[SourceEvent] = []
        rejected: list[RejectedInput] = []
        for number, item in enumerate(items):
            place = f"{request}, page {sweep.pages + 1}, item {number + 1}"
            raw, unwritable = _raw(item)
            try:
                if unwritable is not None:
                    raise unwritable
                event = self._event(item, raw, standing, sweep, place)
            except RejectedError as error:
                mark = digest(raw)
                if mark not in standing.seen and mark not in sweep.refused:
                    rejected.append(RejectedInput(raw=raw, reason=error.message, place=place))
                sweep.refused.add(mark)
                continue
            if event is not None:
                events.append(event)
        return events, rejected

    def _event(self, item: Any, raw: bytes, standing: Standing, sweep: Sweep, place: str) -> SourceEvent | None:
        settings = self._settings
        if not isinstance(item, dict):
            found = "a line that is no JSON" if isinstance(item, bytes) else type(item).__name__
            raise RejectedError(f"an item must be a JSON object, found {found}")
        name = None if settings.id is None else _text(item, settings.id)
        moment = None if settings.time is None else _moment(item, settings.time)
        key = None if settings.key is None else _text(item, settings.key)
        event_id = name
        if settings.incremental is not None:
            value = at_path(item, settings.incremental.field, None)
            if not self._is_new(value, digest(name.encode() if name is not None else raw), standing, sweep):
                return None
            # The same thing changed again is another event.
            event_id = None if name is None else f"{name}@{value}"
        elif settings.emit == "changed":
            mark = digest(raw)
            known = mark in standing.seen or mark in sweep.seen
            sweep.seen.add(mark)
            if known:
                return None
            event_id = None if name is None else f"{name}@{mark.hex()}"
        correlation = None if settings.correlation is None else at_path(item, settings.correlation, None)
        return SourceEvent(
            item,
            id=event_id,
            type=settings.event_type,
            time=moment,
            key=key,
            correlation_id=correlation_from({}, None if correlation is None else str(correlation)),
            raw=raw,
            place=place,
        )

    def _is_new(self, value: Any, mark: bytes, standing: Standing, sweep: Sweep) -> bool:
        """Whether an item lies beyond the cursor, or at it and was not published. Raises the sweep's greatest value."""
        assert self._settings.incremental is not None
        way, name = self._settings.incremental.order, self._settings.incremental.field
        here = ordered(value, way)
        if here is None:
            raise RejectedError(f"the field {name} must hold a value that can be compared")
        floor = None if standing.cursor is None else ordered(standing.cursor, way)
        high = None if sweep.high is None else ordered(sweep.high, way)
        for other in (floor, high):
            if other is not None and other[0] != here[0]:
                raise RejectedError(f"the field {name} holds a {here[0]} where it held a {other[0]} before")
        if floor is not None and (here[1] < floor[1] or (here[1] == floor[1] and mark in standing.seen)):
            return False
        if high is None or here[1] > high[1]:
            sweep.high, sweep.seen = value, {mark}
            return True
        if here[1] == high[1]:
            known = mark in sweep.seen
            sweep.seen.add(mark)
            return not known
        return True


def item_digest(item: Any) -> bytes:
    """What stands for an item of any kind."""
    return digest(_raw(item)[0])


def _raw(item: Any) -> tuple[bytes, RejectedError | None]:
    """An item as it is kept, and why it can't become an event where its JSON is nothing that may be written again."""
    if isinstance(item, bytes):
        return item, None
    try:
        return to_json_bytes(item, sort_keys=True), None
    except RejectedError as error:
        return any_json_bytes(item), error


def _text(item: dict[str, Any], path: str) -> str:
    value = at_path(item, path, None)
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or value == "":
        raise RejectedError(f"the field {path} must hold text or a number")
    return str(value)


def _moment(item: dict[str, Any], path: str) -> datetime:
    value = at_path(item, path, None)
    found: datetime | None = None
    if isinstance(value, str):
        found = parse_time(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        # Unix seconds stay below 1e11 until the year 5138; milliseconds have been above it since 1973.
        seconds = value / 1000 if abs(value) > 1e11 else value
        try:
            found = datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            found = None
    if found is None:
        raise RejectedError(f"the field {path} must hold a time: ISO 8601, or Unix seconds or milliseconds")
    return found
