"""Partitions of the parked records: a key is held back where its records are read, so inputs and park must be divided alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from trunkline.bus.kafka import KafkaSettings, headers_of, read_all
from trunkline.bus.names import Names
from trunkline.bus.parking.records import ParkedRecord, is_record
from trunkline.bus.state import Entry, changelog_config
from trunkline.bus.topics import DEAD_LETTER_ROOM, TopicPlan, TopicState, ensure_topics, grow_topics, topic_states
from trunkline.core.errors import ConfigurationError
from trunkline.core.log import get_logger

log = get_logger(__name__)
TopicShape = tuple[int, int]
"""How many partitions a topic has, and the largest message in bytes that it takes."""


def parked_records(settings: KafkaSettings, names: Names, pipeline: str) -> Iterator[tuple[int, ParkedRecord]]:
    """Every record that is parked now, with its partition: keys in no order, the records of a key in theirs."""
    found: dict[tuple[int, bytes], Entry] = {}
    for message in read_all(settings, names.parked(pipeline)):
        place, value = (message.partition() or 0, message.key() or b""), message.value()
        if value is None:
            found.pop(place, None)
        elif is_record(place[1]):
            found[place] = Entry(value, headers_of(message))
    for (partition, store_key), entry in sorted(found.items()):
        yield partition, ParkedRecord.of(store_key, entry)


def fit_parked_topic(
    settings: KafkaSettings, names: Names, pipeline: str, inputs: Mapping[str, TopicShape], *, asked: bool
) -> TopicState | None:
    """The topic of a pipeline's parked records, made where it does not exist, with as many partitions as the inputs have.

    `inputs` has the retry topic too. Where inputs have different numbers, a key's records are read by
    different workers and can't be held back: None, or where parking is `asked` for `ConfigurationError`. Raises
    `ConfigurationError` also where the inputs grew while something is parked: the key's new records came elsewhere.
    """
    retry, topic = names.retry(pipeline), names.parked(pipeline)
    counts = {partitions for name, (partitions, _) in inputs.items() if name != retry}
    if len(counts) != 1:
        problem = (
            f"the inputs of {pipeline} have different numbers of partitions ({', '.join(map(str, sorted(counts)))})"
        )
        if asked:
            raise ConfigurationError(
                f"{problem}, so no key can be parked",
                hint="give them the same number, or choose `exhausted: dead-letter`",
                code="parked.partitions",
            )
        log.warning("keys are not parked but dead-lettered", pipeline=pipeline, reason=problem)
        return None
    (wanted,) = counts
    room = max(limit for _, limit in inputs.values()) + DEAD_LETTER_ROOM
    ensure_topics(settings, [TopicPlan(topic, wanted, config=changelog_config(room))])
    state = topic_states(settings, [topic])[topic]
    if state.partitions < wanted and any(True for _ in parked_records(settings, names, pipeline)):
        raise ConfigurationError(
            f"the inputs of {pipeline} have {wanted} partitions now, and records are parked in {state.partitions}",
            hint=f"settle them before partitions are added: `trunkline parked list {pipeline}`",
            code="parked.partitions",
        )
    have = {topic: state.partitions, **({retry: inputs[retry][0]} if retry in inputs else {})}
    grow_topics(settings, {name: wanted for name, count in have.items() if count < wanted})
    return state
