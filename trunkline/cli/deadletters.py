"""Reading dead letters for people, and sending them again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from trunkline.bus.deadletters import ATTEMPTS, EXCEPTION, FINGERPRINT, MESSAGE, PLACE, STAGE, DeadLetter
from trunkline.bus.kafka import KafkaSettings, end_offsets, read_all
from trunkline.bus.redrive.job import plan_of, way_of
from trunkline.bus.redrive.jobs import Job, RedriveOrder
from trunkline.bus.redrive.letters import compile_filter, decoded_value, text_of
from trunkline.bus.redrive.plan import Plan
from trunkline.bus.redrive.transactions import Redrive
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.bus.worker.applied import read_applied
from trunkline.cli.jobs import attend, create, surroundings
from trunkline.cli.session import Session
from trunkline.control import pipelines
from trunkline.control.timestamps import utc
from trunkline.core.envelope import CE_CORRELATION_ID, CE_ID
from trunkline.core.errors import ConfigurationError
from trunkline.core.jsonable import to_jsonable
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder


@dataclass(slots=True)
class Group:
    """Dead letters of one cause. `first` and `last` are when the first attempt of each failed, RFC 3339; `reason` is the latest, and
    `example` its place. `owner` is whom the pipeline's manifest names."""

    pipeline: str
    fingerprint: str
    count: int
    stage: str
    code: str
    reason: str
    first: str
    last: str
    example: str
    owner: str | None

    def as_dict(self) -> dict[str, Any]:
        """The group as data."""
        return asdict(self)


def grouped(session: Session, kafka: KafkaSettings, pipeline: str | None) -> list[Group]:
    """The dead letters that wait, by pipeline and fingerprint, the largest groups first."""
    groups: dict[tuple[str, str], Group] = {}
    owners = _owners(session, kafka)
    for name in pipelines.known(session.cluster(kafka), pipeline):
        for letter in Redrive(kafka, session.names(), name).still_waiting():
            key, failed = (name, letter.header(FINGERPRINT)), utc(letter.failed_at)
            group = groups.get(key)
            if group is None:
                stage, code, reason = letter.header(STAGE), letter.header(EXCEPTION), letter.header(MESSAGE)
                owner = owners.get(name)
                groups[key] = Group(name, key[1], 1, stage, code, reason, failed, failed, letter.place, owner)
                continue
            group.count += 1
            group.first = min(group.first, failed)
            if failed >= group.last:
                group.last, group.reason, group.example = failed, letter.header(MESSAGE), letter.place
    return sorted(groups.values(), key=lambda group: (group.pipeline, -group.count, group.fingerprint))


def _owners(session: Session, kafka: KafkaSettings) -> dict[str, str | None]:
    manifests = read_applied(kafka, session.names()).values()
    return {one["metadata"]["name"]: one["metadata"].get("owner") for one in manifests if one["kind"] != "Topic"}


def waiting(
    session: Session,
    kafka: KafkaSettings,
    registry: RegistryClient,
    pipeline: str,
    where: str | None,
    limit: int | None,
) -> list[DeadLetter]:
    """The dead letters of one pipeline that were not sent again and pass the filter. Says where that could not be evaluated."""
    pipelines.known(session.cluster(kafka), pipeline)
    matches = compile_filter(where, Decoder(registry)) if where is not None else None
    found: Iterator[DeadLetter] = Redrive(kafka, session.names(), pipeline).still_waiting()
    chosen = list(islice((letter for letter in found if matches is None or matches(letter)), limit))
    if matches is not None:
        say_unjudged(session, matches.unjudged, matches.first_unjudged)
    return chosen


def say_unjudged(session: Session, count: int, first: str) -> None:
    """Says on how many letters a filter could not be evaluated, and why on the first; nothing where there were none."""
    if count:
        letters = "1 letter" if count == 1 else f"{count} letters"
        session.out.note(f"--filter could not be evaluated on {letters}, not chosen therefore: {first}")


def at_place(session: Session, kafka: KafkaSettings, pipeline: str, place: str) -> DeadLetter:
    """The dead letter at `PARTITION@OFFSET`, sent again or not. Raises `ConfigurationError` where there is none."""
    partition, offset = parsed_place(place)
    topic = session.names().dead_letters(pipeline)
    for message in read_all(kafka, topic, partitions=[partition], start=lambda _reader, _number: offset):
        letter = DeadLetter.from_message(message)
        if letter.offset == offset:
            return letter
        break
    raise ConfigurationError(
        f"{topic} has no record at {place}", hint=f"`trunkline dlq show {pipeline}` lists them", code="dlq.unknown"
    )


def parsed_place(place: str) -> tuple[int, int]:
    """Partition and offset of `PARTITION@OFFSET`. Raises `ConfigurationError` for anything else."""
    partition, sign, offset = place.partition("@")
    if not sign or not partition.isdigit() or not offset.isdigit():
        raise ConfigurationError(
            f"{place!r} is no place",
            where="PLACE",
            hint="write PARTITION@OFFSET, as `dlq show` lists it",
            code="option.place",
        )
    return int(partition), int(offset)


def letter_data(letter: DeadLetter, registry: RegistryClient) -> dict[str, Any]:
    """A dead letter as data, its value decoded where that is possible."""
    topic, partition, offset = letter.origin
    value, undecodable = decoded_value(letter.value, Decoder(registry))
    return {
        "place": letter.place,
        "failed_at": utc(letter.failed_at),
        "stage": letter.header(STAGE),
        "code": letter.header(EXCEPTION),
        "reason": letter.header(MESSAGE),
        "attempts": int(letter.header(ATTEMPTS) or 0),
        "redrives": letter.redrives,
        "origin": f"{topic}[{partition}]@{offset}" if topic else letter.header(PLACE),
        "fingerprint": letter.header(FINGERPRINT),
        "id": letter.header(CE_ID),
        "correlation_id": letter.header(CE_CORRELATION_ID),
        "key": text_of(letter.key),
        "headers": {name: text_of(content) for name, content in letter.original_headers()},
        "value": to_jsonable(value),
        "undecodable": undecodable,
    }


def order_of(
    session: Session,
    kafka: KafkaSettings,
    pipeline: str,
    places: Sequence[str],
    *,
    where: str | None,
    limit: int | None,
    rate: float | None,
    cap: int,
    edit: dict[str, Any] | None,
) -> RedriveOrder:
    """What is asked of a redrive, over the letters that are there now. Raises `ConfigurationError` for places without a letter."""
    pipelines.known(session.cluster(kafka), pipeline)
    for place in places:
        at_place(session, kafka, pipeline, place)
    ends = end_offsets(kafka, session.names().dead_letters(pipeline))
    scope = {str(partition): end for partition, end in ends.items()}
    return RedriveOrder(where, tuple(places), limit, rate, cap, edit, scope)


def redriven(
    session: Session, kafka: KafkaSettings, pipeline: str, order: RedriveOrder, *, dry_run: bool, detach: bool
) -> tuple[Plan, Job | None]:
    """The letters as counted first, and the job that sent them: none for a dry run, and where there is nothing to send."""
    ensure_topics(kafka, internal_topics(session.names()))
    with session.registry(kafka) as registry:
        around = surroundings(session, kafka, registry)
        plan = plan_of(around, pipeline, order, way_of(around, pipeline, order))
        if dry_run or not plan.total:
            return plan, None
        job = create(kafka, session.names(), pipeline, order, plan.total)
        if detach:
            return plan, job
        session.out.note(f"job {job.id}: {plan.total} to send")
        return plan, attend(session, around, job)
