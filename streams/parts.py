"""The parts of an event that becomes several: each with a value, an id and headers of its own, alike at every repetition."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from trunkline.core.envelope import CE_ID, envelope_to_headers
from trunkline.core.event import Event


def parts_of(event: Event, values: Iterable[Any]) -> list[Event]:
    """An event for each value. The id of the n-th (from 0) is the whole's with `.n`, and the whole's id its causation id.

    Headers that are no part of the envelope go with every part.
    """
    envelope = event.envelope
    shared = envelope_to_headers(envelope.part(0))
    names = {name for name, _ in shared}
    shared += [(name, value) for name, value in event.headers if name not in names]
    place = next(index for index, (name, _) in enumerate(shared) if name == CE_ID)
    parts = []
    for number, value in enumerate(values):
        headers = shared.copy()
        headers[place] = (CE_ID, f"{envelope.id}.{number}".encode())
        parts.append(event.copy(value, headers))
    return parts
