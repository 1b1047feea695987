"""Dead letters: grouped by what they have in common, listed, and looked at one by one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any

from trunkline.bus.deadletters import ATTEMPTS, EXCEPTION, FINGERPRINT, MESSAGE, PLACE, STAGE, DeadLetter
from trunkline.bus.kafka import read_all
from trunkline.bus.redrive.letters import compile_filter, decoded_value, text_of
from trunkline.bus.redrive.marks import settled
from trunkline.bus.redrive.transactions import Redrive
from trunkline.bus.worker.applied import read_applied
from trunkline.control import pipelines
from trunkline.control.cluster import Cluster
from trunkline.control.filters import check_letter_filter
from trunkline.control.timestamps import utc
from trunkline.core.envelope import CE_CORRELATION_ID, CE_ID
from trunkline.core.errors import ConfigurationError
from trunkline.core.jsonable import to_jsonable
from trunkline.core.manifests.kinds import PIPELINE_KINDS
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


def grouped(cluster: Cluster, pipeline: str | None = None) -> list[Group]:
    """The dead letters that wait, by pipeline and fingerprint, the largest groups first."""
    groups: dict[tuple[str, str], Group] = {}
    owners = _owners(cluster)
    for name in pipelines.known(cluster, pipeline):
        for letter in Redrive(cluster.kafka, cluster.names, name).still_waiting():
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


def _owners(cluster: Cluster) -> dict[str, str | None]:
    manifests = read_applied(cluster.kafka, cluster.names).values()
    return {one["metadata"]["name"]: one["metadata"].get("owner") for one in manifests if one["kind"] in PIPELINE_KINDS}


@dataclass(frozen=True, slots=True)
class Waiting:
    """Dead letters that wait and that a filter chose. On `unjudged` letters it could not be evaluated, for the reason
    `first_unjudged` on the first of them: they are not chosen."""

    letters: list[DeadLetter]
    unjudged: int = 0
    first_unjudged: str = ""


def waiting(
    cluster: Cluster, registry: RegistryClient, pipeline: str, *, where: str | None, limit: int | None
) -> Waiting:
    """The oldest `limit` dead letters of one pipeline that wait and for which `where`, an expression, is true.

    Raises `ConfigurationError` for a wrong expression, also one with a field that no schema of the pipeline's inputs has.
    """
    pipelines.known(cluster, pipeline)
    if where is not None:
        check_letter_filter(cluster, registry, pipeline, where, "--filter")
    matches = compile_filter(where, cluster.decoders(registry)) if where is not None else None
    found = Redrive(cluster.kafka, cluster.names, pipeline).still_waiting()
    chosen = list(islice((letter for letter in found if matches is None or matches(letter)), limit))
    return Waiting(chosen) if matches is None else Waiting(chosen, matches.unjudged, matches.first_unjudged)


def at_place(cluster: Cluster, pipeline: str, place: str) -> DeadLetter:
    """The dead letter at `PARTITION@OFFSET`, sent again or not. Raises `ConfigurationError` where there is none."""
    partition, offset = parsed_place(place)
    topic = cluster.names.dead_letters(pipeline)
    for message in read_all(cluster.kafka, topic, partitions=[partition], start=lambda _reader, _number: offset):
        letter = DeadLetter.from_message(message)
        if letter.offset == offset:
            return letter
        break
    raise ConfigurationError(
        f"{topic} has no record at {place}", hint=f"`trunkline dlq show {pipeline}` lists them", code="dlq.unknown"
    )


def fate(cluster: Cluster, pipeline: str, letter: DeadLetter) -> dict[str, Any] | None:
    """What became of a letter that waits no longer: who sent it again or dropped it, when and why. None while it waits."""
    found = settled(cluster.kafka, cluster.names, pipeline, letter)
    if found is None:
        return None
    told = {
        "became": "sent again" if found.dropped is None else "dropped",
        "by": found.by,
        "at": utc(int(found.at * 1000)),
    }
    return {**told, "job": found.run} if found.dropped is None else {**told, "reason": found.dropped}


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


@dataclass(frozen=True, slots=True)
class LetterDetails:
    """A dead letter for a reader. `origin` is the place of the record that failed, `headers` are those that the record had.

    `value` is decoded where that is possible; `undecodable` has the reason where it is not.
    """

    place: str
    failed_at: str
    stage: str
    code: str
    reason: str
    attempts: int
    redrives: int
    origin: str
    fingerprint: str
    id: str
    correlation_id: str
    key: str | None
    headers: dict[str, str | None]
    value: Any
    undecodable: str | None

    def as_dict(self) -> dict[str, Any]:
        """The letter as data."""
        return {name: getattr(self, name) for name in self.__slots__}


def details(letter: DeadLetter, decoder_of: Callable[[str], Decoder]) -> LetterDetails:
    """What there is to read of a dead letter. `decoder_of` gives the decoder of a topic."""
    topic, partition, offset = letter.origin
    value, undecodable = decoded_value(letter.value, decoder_of(letter.first_origin[0]))
    return LetterDetails(
        place=letter.place,
        failed_at=utc(letter.failed_at),
        stage=letter.header(STAGE),
        code=letter.header(EXCEPTION),
        reason=letter.header(MESSAGE),
        attempts=int(letter.header(ATTEMPTS) or 0),
        redrives=letter.redrives,
        origin=f"{topic}[{partition}]@{offset}" if topic else letter.header(PLACE),
        fingerprint=letter.header(FINGERPRINT),
        id=letter.header(CE_ID),
        correlation_id=letter.header(CE_CORRELATION_ID),
        key=text_of(letter.key),
        headers={name: text_of(content) for name, content in letter.original_headers()},
        value=to_jsonable(value),
        undecodable=undecodable,
    )
