"""How a dead letter goes again: a record through its pipeline's retry topic, a source's raw input through that source's publisher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, Protocol

from trunkline.bus.deadletters import ORIGIN, REDRIVE, REDRIVES, SENT_AGAIN, DeadLetter, place_in
from trunkline.bus.names import Names
from trunkline.bus.redrive.edits import Edit, Editor, input_editor
from trunkline.bus.source.publish import Publisher
from trunkline.core.contracts import SourceEvent
from trunkline.core.envelope import (
    CE_CORRELATION_ID,
    CE_ID,
    CE_SOURCE,
    CE_SUBJECT,
    CE_TIME,
    CE_TYPE,
    TRACEPARENT,
    WireHeaders,
)
from trunkline.core.errors import RejectedError


class Resent(NamedTuple):
    """One record that goes out for a letter. A partition of -1 follows from the key."""

    topic: str
    value: bytes | None
    key: bytes | None
    headers: WireHeaders
    partition: int = -1


class Way(Protocol):
    """How the letters of one pipeline go again."""

    may_refuse: bool
    """Whether `records` can refuse a letter: then each is tried before the first is sent."""

    def records(self, letter: DeadLetter, run: str) -> Sequence[Resent]:
        """What goes out for a letter in the redrive `run`. Raises RejectedError where it can't go as it is."""


class RetryWay:
    """Through `<pipeline>.retry`, which this pipeline reads and no other, with the original bytes or the edited value."""

    def __init__(
        self,
        names: Names,
        pipeline: str,
        partitions: int,
        topic_id: Callable[[str], str],
        editor: Editor | None = None,
    ) -> None:
        self._topic = names.retry(pipeline)
        self._partitions = partitions
        self._topic_id = topic_id
        self._editor = editor
        self.may_refuse = editor is not None

    def records(self, letter: DeadLetter, run: str) -> Sequence[Resent]:
        """As `Way`. The event keeps its key and its idempotency key."""
        topic, partition, _ = letter.origin
        value = letter.value if self._editor is None else self._editor.edited(letter)
        # A record keeps its partition number, so that it meets the worker that has its key.
        target = partition if topic and 0 <= partition < self._partitions else letter.partition
        return [Resent(self._topic, value, letter.key, self._headers(letter, run), target)]

    def _headers(self, letter: DeadLetter, run: str) -> WireHeaders:
        topic, partition, offset = letter.origin
        first = letter.header(ORIGIN)
        if place_in(first) is None:
            first = f"{topic}/{letter.first_topic_id or self._topic_id(topic)}/{partition}/{offset}"
        headers = [(name, value) for name, value in letter.original_headers() if name not in SENT_AGAIN]
        again = [(ORIGIN, first), (REDRIVE, run), (REDRIVES, str(letter.redrives + 1))]
        return [*headers, *((name, value.encode()) for name, value in again)]


class SourceWay:
    """Through the publisher of the source: cast, routed and encoded as what the source finds is, under the id it had."""

    may_refuse = True

    def __init__(self, publisher: Publisher, edit: Edit) -> None:
        self._publisher = publisher
        self._value_of = input_editor(edit)

    def records(self, letter: DeadLetter, run: str) -> Sequence[Resent]:
        """As `Way`: refuses what would go to quarantine again, with the reason."""
        published = self._publisher.publish(_event(letter, self._value_of(letter)))
        if published.outcome == "dead":
            raise RejectedError(published.detail or "it does not fit its schema", code="edit.refused")
        return [Resent(*output) for output in published.outputs]


def _event(letter: DeadLetter, value: object) -> SourceEvent:
    kind = letter.header(CE_TYPE)
    time = letter.header(CE_TIME)
    return SourceEvent(
        value,
        id=letter.header(CE_ID) or None,
        type=kind.removesuffix(".rejected") or None,
        source=letter.header(CE_SOURCE) or None,
        subject=letter.header(CE_SUBJECT) or None,
        time=datetime.fromisoformat(time) if time else None,
        key=letter.key.decode("utf-8", "replace") if letter.key is not None else None,
        correlation_id=letter.header(CE_CORRELATION_ID) or None,
        traceparent=letter.header(TRACEPARENT) or None,
        raw=letter.value,
    )
