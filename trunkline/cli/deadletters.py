"""Reading dead letters for people, and sending them again."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any

from trunkline.bus.deadletters import ATTEMPTS, EXCEPTION, FAILED_AT, FINGERPRINT, MESSAGE, PLACE, STAGE, DeadLetter
from trunkline.bus.kafka import KafkaSettings, read_all
from trunkline.bus.redrive import Redrive
from trunkline.cli.output import console
from trunkline.cli.session import Session, user
from trunkline.cli.standing import known_pipelines
from trunkline.cli.tailing import decoded_value, text_of
from trunkline.cli.values import utc
from trunkline.core.envelope import CE_CORRELATION_ID, CE_ID
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.expressions import BOOL, compile_expression
from trunkline.core.jsonable import to_jsonable
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder


@dataclass(slots=True)
class Group:
    """Dead letters of one cause. `first` and `last` are when the first attempt of each failed, RFC 3339; `reason` is the latest."""

    pipeline: str
    fingerprint: str
    count: int
    stage: str
    code: str
    reason: str
    first: str
    last: str

    def as_dict(self) -> dict[str, Any]:
        """The group as data."""
        return asdict(self)


def grouped(session: Session, kafka: KafkaSettings, registry: RegistryClient, pipeline: str | None) -> list[Group]:
    """The dead letters that wait, by pipeline and fingerprint, the largest groups first."""
    groups: dict[tuple[str, str], Group] = {}
    for name in known_pipelines(session, kafka, session.names(), pipeline):
        for letter in Redrive(kafka, session.names(), name).waiting():
            key, failed = (name, letter.header(FINGERPRINT)), _failed_at(letter)
            group = groups.get(key)
            if group is None:
                stage, code, reason = letter.header(STAGE), letter.header(EXCEPTION), letter.header(MESSAGE)
                groups[key] = Group(name, key[1], 1, stage, code, reason, failed, failed)
                continue
            group.count += 1
            group.first = min(group.first, failed)
            if failed >= group.last:
                group.last, group.reason = failed, letter.header(MESSAGE)
    return sorted(groups.values(), key=lambda group: (group.pipeline, -group.count, group.fingerprint))


def waiting(
    session: Session,
    kafka: KafkaSettings,
    registry: RegistryClient,
    pipeline: str,
    where: str | None,
    limit: int | None,
) -> list[DeadLetter]:
    """The dead letters of one pipeline that were not sent again and pass the filter."""
    known_pipelines(session, kafka, session.names(), pipeline)
    matches = matcher(where, registry) if where is not None else None
    return Redrive(kafka, session.names(), pipeline).waiting(matches)[:limit]


def matcher(where: str, registry: RegistryClient) -> Callable[[DeadLetter], bool]:
    """Whether an expression is true of a dead letter: of its value as `event`, and of all its headers, those of the failure too.

    Raises `ConfigurationError` for a wrong expression. One that can't be evaluated on a dead letter is not true of it.
    """
    holds = compile_expression(where, expect=BOOL, where="--filter")
    decoder = Decoder(registry)

    def matches(letter: DeadLetter) -> bool:
        value, _ = decoded_value(letter.value, decoder)
        topic, partition, offset = letter.origin
        event = Event(
            value,
            raw=letter.value,
            raw_key=letter.key,
            headers=letter.headers,
            topic=topic,
            partition=partition,
            offset=offset,
            timestamp=letter.timestamp,
        )
        try:
            return holds(value, event) is True
        except RejectedError:
            return False

    return matches


def at_place(session: Session, kafka: KafkaSettings, pipeline: str, place: str) -> DeadLetter:
    """The dead letter at `PARTITION@OFFSET`, sent again or not. Raises `ConfigurationError` where there is none."""
    partition, sign, offset = place.partition("@")
    if not sign or not partition.isdigit() or not offset.isdigit():
        raise ConfigurationError(
            f"{place!r} is no place",
            where="PLACE",
            hint="write PARTITION@OFFSET, as `dlq show` lists it",
            code="option.place",
        )
    topic = session.names().dead_letters(pipeline)
    for message in read_all(kafka, topic, partitions=[int(partition)], start=lambda _reader, _number: int(offset)):
        letter = DeadLetter.from_message(message)
        if letter.offset == int(offset):
            return letter
        break
    raise ConfigurationError(
        f"{topic} has no record at {place}", hint=f"`trunkline dlq show {pipeline}` lists them", code="dlq.unknown"
    )


def letter_data(letter: DeadLetter, registry: RegistryClient) -> dict[str, Any]:
    """A dead letter as data, its value decoded where that is possible."""
    topic, partition, offset = letter.origin
    value, undecodable = decoded_value(letter.value, Decoder(registry))
    return {
        "place": f"{letter.partition}@{letter.offset}",
        "failed_at": _failed_at(letter),
        "stage": letter.header(STAGE),
        "code": letter.header(EXCEPTION),
        "reason": letter.header(MESSAGE),
        "attempts": int(letter.header(ATTEMPTS) or 0),
        "origin": f"{topic}[{partition}]@{offset}" if topic else letter.header(PLACE),
        "fingerprint": letter.header(FINGERPRINT),
        "id": letter.header(CE_ID),
        "correlation_id": letter.header(CE_CORRELATION_ID),
        "key": text_of(letter.key),
        "headers": {name: text_of(content) for name, content in letter.original_headers()},
        "value": to_jsonable(value),
        "undecodable": undecodable,
    }


def send_again(
    session: Session,
    kafka: KafkaSettings,
    registry: RegistryClient,
    pipeline: str,
    where: str | None,
    *,
    dry_run: bool,
    rate: float | None,
    limit: int | None,
) -> tuple[int, int]:
    """How many dead letters were chosen, and how many of them were sent again. Ctrl-C ends the sending in order."""
    letters = waiting(session, kafka, registry, pipeline, where, limit)
    if dry_run or not letters:
        return len(letters), 0
    cancelled = threading.Event()

    def cancel(_number: int, _frame: FrameType | None) -> None:
        cancelled.set()

    before = signal.signal(signal.SIGINT, cancel)
    try:
        sent = _send(Redrive(kafka, session.names(), pipeline), letters, rate, cancelled)
    finally:
        signal.signal(signal.SIGINT, before)
    if cancelled.is_set():
        session.out.note(f"cancelled after {sent} of {len(letters)}; the next redrive goes on from there")
    return len(letters), sent


def _send(redrive: Redrive, letters: list[DeadLetter], rate: float | None, cancelled: threading.Event) -> int:
    screen = console(sys.stderr)
    if not screen.is_terminal:
        return redrive.send(letters, rate=rate, by=user(), cancelled=cancelled.is_set)
    from rich.progress import Progress

    with Progress(console=screen) as bar:
        task = bar.add_task("Sending again", total=len(letters))
        return redrive.send(
            letters,
            rate=rate,
            by=user(),
            on_progress=lambda done: bar.update(task, completed=done),
            cancelled=cancelled.is_set,
        )


def _failed_at(letter: DeadLetter) -> str:
    text = letter.header(FAILED_AT)
    return utc(int(text) if text.isdigit() else letter.timestamp)
