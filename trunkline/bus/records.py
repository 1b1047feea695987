"""Records as the runtimes share them: one that is to be written, and the envelope of one that came without."""

from __future__ import annotations

from typing import NamedTuple

from trunkline.bus.deadletters import event_id
from trunkline.core.envelope import Headers, WireHeaders, envelope_from_headers, envelope_to_headers
from trunkline.core.event import Event


class Output(NamedTuple):
    """A record to be written."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: WireHeaders


def with_envelope(event: Event) -> Headers:
    """The headers of a foreign record with the attributes that it lacks: an id that stays the same for its place, a correlation id."""
    # Not `event.envelope`: a redriven record is still the one of its first place.
    envelope = envelope_from_headers(event.headers, foreign_id=event_id(event))
    own = envelope_to_headers(envelope)
    names = {name for name, _ in own}
    return own + [(name, value) for name, value in event.headers if name not in names]
