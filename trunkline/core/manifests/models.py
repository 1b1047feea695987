"""The kinds of manifest as pydantic models. What a plug-in's `config` may hold is the plug-in's own affair."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from trunkline.core.manifests.names import Name, TopicName, topics_as_list
from trunkline.core.settings import Duration, Size, refuse_truth_for_numbers
from trunkline.core.subjects import DEFAULT_SUBJECT, pattern_of

API_VERSION = "trunkline/v1"


class Model(BaseModel):
    """Base of the manifest models: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _numbers_are_numbers(cls, data: Any) -> Any:
        if isinstance(data, dict):
            refuse_truth_for_numbers(cls, data)
        return data


class Metadata(Model):
    """Who owns a pipeline and what it is called."""

    name: Name = Field(description="The name: lower case letters, digits and hyphens.")
    owner: str | None = Field(None, description="Who is asked when it fails: an e-mail address or a team.")
    description: str | None = Field(None, description="One or two sentences for the catalog.")
    labels: dict[str, str] = Field(default_factory=dict, description="Free labels, such as `domain: flights`.")


class TopicMetadata(Metadata):
    """As `Metadata`, with a topic's name: dots are allowed, and a last part `*` stands for a family of topics."""

    name: TopicName = Field(description="The topic's name, such as `flights.delayed`, or `github.*` for a family.")


class TopicSpec(Model):
    """A Kafka topic with its Avro contract."""

    partitions: int = Field(1, ge=1, le=10_000, description="How many partitions it is created with.")
    replication: int | None = Field(None, ge=1, le=32_767, description="Replicas; the broker's default where absent.")
    value_schema: str | dict[str, Any] | list[Any] | None = Field(
        None,
        alias="schema",
        description="The Avro schema of its values: a path to an .avsc file beside the manifest, or the schema itself.",
    )
    compatibility: (
        Literal["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"]
        | None
    ) = Field(None, description="Which changes of the schema the registry accepts; its global level where absent.")
    config: dict[str, str | int | float | bool] = Field(
        default_factory=dict, description="Kafka's topic settings, such as `retention.ms`."
    )
    trust: Literal["internal", "external"] = Field(
        "internal",
        description="`external`: others write to it, so every value is checked in full before it is decoded.",
    )
    external: bool = Field(
        False, description="It exists already and belongs to others: never created or changed by us."
    )
    subject: Annotated[str, AfterValidator(pattern_of)] = Field(
        DEFAULT_SUBJECT,
        description="The registry's subject of its values, with `{topic}` and `{record}` (the schema's full name) filled in. "
        "A record whose schema id is of another subject becomes a dead letter. `{record}` and `{topic}-{record}` are Confluent's "
        "RecordNameStrategy and TopicRecordNameStrategy; a topic that is mirrored under another name has the subject of the "
        "original; `*` takes every id.",
    )


class BreakerSpec(Model):
    """When calls to an account stop because too many fail, and how it is found out that they work again."""

    share: float = Field(0.5, gt=0, le=1, description="It opens when this share of the calls in the window failed.")
    window: Duration = Field(
        30.0, gt=0, description="How far back calls count; of those the last ones, five times `calls`."
    )
    calls: int = Field(10, ge=1, le=1000, description="It does not open before so many calls are in the window.")
    wait: Duration = Field(
        1.0, gt=0, description="How long it stays open before one call probes; twice that after each probe that fails."
    )
    longest: Duration = Field(60.0, gt=0, description="The longest wait between two probes.")


class LimitsSpec(Model):
    """What an account allows, all workers together. What is absent is not limited."""

    per_second: int | None = Field(None, ge=1, description="Requests that begin in any second.")
    per_minute: int | None = Field(None, ge=1, description="Requests that begin in any minute.")
    per_day: int | None = Field(
        None, ge=1, description="Requests of a day: the account's own where it says how much is used, else a UTC day."
    )
    concurrent: int | None = Field(None, ge=1, description="Requests under way at once.")


class ConnectionSpec(Model):
    """An account in another system that several pipelines share."""

    connector: str = Field(description="The plug-in whose connection settings these are.")
    config: dict[str, Any] = Field(default_factory=dict, description="The plug-in's connection settings.")
    breaker: BreakerSpec = Field(
        default_factory=BreakerSpec,
        description="The circuit breaker that its sinks share on each worker. While it is open offsets are held and nothing is "
        "dead-lettered. A sink without a `Connection` has one of its own with these defaults.",
    )
    limits: LimitsSpec | None = Field(
        None,
        description="What the account allows. All sinks of all workers that use this connection share it; each call of a sink is "
        "taken to be one request.",
    )


class Target(Model):
    """Where a record goes. Every target whose `when` holds gets it; `otherwise` ones only if no other did."""

    topic: TopicName = Field(description="The topic, or a family such as `github.*` with `name`.")
    when: str | None = Field(None, description="A CEL expression; the target takes the records for which it is true.")
    otherwise: bool = Field(False, description="Take the records that no target with a `when` has taken.")
    key: str | None = Field(
        None, description="A CEL expression whose text becomes the record's key; else the key is kept."
    )
    name: str | None = Field(None, description="A CEL expression that fills the `*` of a topic family.")


def _as_targets(value: Any) -> Any:
    if isinstance(value, (str, dict)):
        value = [value]
    if isinstance(value, list):
        return [{"topic": item} if isinstance(item, str) else item for item in value]
    return value


Targets = Annotated[list[Target], BeforeValidator(_as_targets), Field(min_length=1)]
Topics = Annotated[list[TopicName], BeforeValidator(topics_as_list), Field(min_length=1)]


_STARTS = "earliest, latest or an RFC 3339 time such as 2026-01-31T00:00:00Z"


def _start(value: Any) -> Any:
    if value in ("earliest", "latest"):  # a tuple: what a manifest says need not be hashable
        return value
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError(f"{_STARTS} is expected, found {value[:60]!r}") from error
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("the time needs a zone, such as 2026-01-31T00:00:00Z")
        return value
    raise ValueError(f"{_STARTS} is expected")


Start = Annotated[Literal["earliest", "latest"] | datetime, BeforeValidator(_start)]
_START = (
    "Where to begin when nothing was read yet: `earliest`, `latest` or a time with zone. It is asked for, so that nobody "
    "posts a topic's whole history by accident."
)


class SourceSpec(Model):
    """A door in."""

    connector: str = Field(description="The source plug-in.")
    connection: Name | None = Field(None, description="The `Connection` it uses.")
    config: dict[str, Any] = Field(default_factory=dict, description="The plug-in's settings.")
    to: Targets = Field(description="The topics it publishes to.")


class StepSpec(Model):
    """One step: exactly one plug-in name with its settings, and what becomes of a record that it can't process."""

    model_config = ConfigDict(extra="allow", frozen=True)

    on_error: Literal["dead-letter", "drop", "pass"] = Field(
        "dead-letter",
        description="A record that the step can't process is dead-lettered, dropped (and counted), or passed on unchanged.",
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_extra or {}) != 1:
            found = ", ".join(self.model_extra or {}) or "none"
            raise ValueError(f"a step names exactly one plug-in, found {found}")
        return self

    @property
    def plugin(self) -> str:
        """The name of the step's plug-in."""
        return next(iter(self.model_extra or {}))

    @property
    def config(self) -> Any:
        """What the manifest says for it."""
        return next(iter((self.model_extra or {}).values()))


class DeadLetterSpec(Model):
    """When dead letters are so many that something other than the records must be wrong."""

    stop_above: int | None = Field(
        1000,
        ge=0,
        description="More dead letters than this among the last `of` records, on one worker, and the pipeline is FAILED until someone "
        "restarts it; offsets are held. 0 stops at the first; null never stops.",
    )
    of: int = Field(2000, ge=1, le=1_000_000, description="How many records back dead letters count.")

    @model_validator(mode="after")
    def _can_be_reached(self) -> DeadLetterSpec:
        if self.stop_above is not None and self.stop_above >= self.of:
            raise ValueError(f"more than {self.stop_above} of {self.of} records can't be dead letters: raise `of`")
        return self


class StreamSpec(Model):
    """The work between."""

    from_: Topics = Field(alias="from", description="The topics it reads.")
    start: Start = Field(description=_START)
    steps: list[StepSpec] = Field(default_factory=list, description="The work, in order.")
    to: Targets = Field(description="The topics it writes to.")
    processing: Literal["exactly-once", "at-least-once"] = Field(
        "exactly-once", description="`at-least-once` is faster and may repeat records after a crash."
    )
    dead_letters: DeadLetterSpec = Field(
        default_factory=DeadLetterSpec, description="Too many of them stop the pipeline."
    )


class RetrySpec(Model):
    """How often and how patiently a delivery is tried again: full jitter between 0 and min(max_delay, min_delay x 2^n)."""

    attempts: int = Field(8, ge=1, le=1000, description="Calls in all before a record is a dead letter.")
    min_delay: Duration = Field(0.5, description="The first wait at the most.")
    max_delay: Duration = Field(300.0, description="The longest wait.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_delay > self.max_delay and {"min_delay", "max_delay"} <= self.model_fields_set:
            raise ValueError(f"min_delay ({self.min_delay:g} s) is longer than max_delay ({self.max_delay:g} s)")
        return self


class BatchSpec(Model):
    """When a batch is full: whichever comes first."""

    count: int | None = Field(None, ge=1, le=1_000_000, description="Records; the plug-in's own maximum where absent.")
    bytes: Size = Field(16 * 2**20, ge=1, description="Bytes of the records' values.")
    age: Duration = Field(1.0, description="How long the first record of a batch waits for company.")


class DeliverySpec(Model):
    """How a sink delivers."""

    order: Literal["key", "partition", "none"] = Field(
        "key",
        description="What stays in order: the records of a key, of a partition, or nothing. Records without a key have no order.",
    )
    priority: Literal["low", "normal", "high"] = Field(
        "normal",
        description="What it gets of its connection's `limits` when they do not suffice for all: high 4 parts, normal 2, low 1.",
    )
    in_flight: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="Records under way at once; 32, or one full batch of the plug-in, where absent.",
    )
    batch: BatchSpec = Field(
        default_factory=BatchSpec, description="Batching, where the plug-in takes more than one record a call."
    )
    retry: RetrySpec = Field(default_factory=RetrySpec, description="Retries.")
    timeout: Duration = Field(
        120.0, gt=0, description="How long one call may take before its outcome counts as unknown."
    )
    on_unknown: Literal["retry", "dead-letter"] = Field(
        "retry",
        description="What a sink that is not idempotent does with a record whose outcome is unknown: send it again, or dead-letter it.",
    )
    exhausted: Literal["park", "dead-letter"] | None = Field(
        None,
        description="A record whose attempts are used up: park it and what follows of its key until it is settled, or dead-letter "
        "it. Where absent: park where the order is that of keys, else dead-letter.",
    )
    hold: Size = Field(
        32 * 2**20,
        ge=1,
        description="How many bytes of records it holds, read and not settled. When so many wait for a slow system it reads no more, "
        "and other pipelines go on.",
    )
    access_refusals: int = Field(
        10,
        ge=2,
        description="So many refusals in a row (403, 404) of two or more keys stop the pipeline instead of dead-lettering.",
    )

    @model_validator(mode="after")
    def _only_keys_park(self) -> Self:
        if self.exhausted == "park" and self.order != "key":
            raise ValueError(
                f"only a key can be parked, and the order is {self.order}: choose order: key or exhausted: dead-letter"
            )
        return self

    @property
    def parks(self) -> bool:
        """Whether a key is held back when the attempts of its record are used up."""
        return self.order == "key" and self.exhausted != "dead-letter"


class FallbackSpec(Model):
    """A second sink, for what the first one fails to take. What it takes counts as delivered."""

    connector: str = Field(description="The sink plug-in.")
    connection: Name | None = Field(None, description="The `Connection` it uses.")
    config: dict[str, Any] = Field(default_factory=dict, description="The plug-in's settings.")
    after: int = Field(
        3,
        ge=1,
        le=1000,
        description="So many failed attempts of a record (no answer, a refusal for now) bring it here; at once while the first sink's "
        "breaker is open.",
    )


class SinkSpec(Model):
    """A door out."""

    from_: Topics = Field(alias="from", description="The topics it reads.")
    start: Start = Field(description=_START)
    when: str | None = Field(None, description="A CEL expression; records for which it is false are filtered.")
    connector: str = Field(description="The sink plug-in.")
    connection: Name | None = Field(None, description="The `Connection` it uses.")
    config: dict[str, Any] = Field(default_factory=dict, description="The plug-in's settings.")
    delivery: DeliverySpec = Field(default_factory=DeliverySpec, description="Order, batches and retries.")
    fallback: FallbackSpec | None = Field(
        None, description="Another sink for the records that this one could not be reached for."
    )
    dead_letters: DeadLetterSpec = Field(
        default_factory=DeadLetterSpec, description="Too many of them stop the pipeline."
    )

    @model_validator(mode="after")
    def _reachable_fallback(self) -> Self:
        if self.fallback is not None and self.fallback.after > self.delivery.retry.attempts:
            raise ValueError(
                f"the fallback comes after {self.fallback.after} failed attempts, and delivery.retry.attempts is "
                f"{self.delivery.retry.attempts}: raise that, or lower fallback.after"
            )
        return self


class Topic(Model):
    """A manifest of kind Topic."""

    apiVersion: Literal["trunkline/v1"]  # noqa: N815 (Kubernetes' spelling)
    kind: Literal["Topic"]
    metadata: TopicMetadata
    spec: TopicSpec = Field(default_factory=TopicSpec)


class Connection(Model):
    """A manifest of kind Connection."""

    apiVersion: Literal["trunkline/v1"]  # noqa: N815
    kind: Literal["Connection"]
    metadata: Metadata
    spec: ConnectionSpec


class Source(Model):
    """A manifest of kind Source."""

    apiVersion: Literal["trunkline/v1"]  # noqa: N815
    kind: Literal["Source"]
    metadata: Metadata
    spec: SourceSpec

    @property
    def inputs(self) -> Sequence[str]:
        """The topics and families that it reads."""
        return ()

    @property
    def targets(self) -> Sequence[Target]:
        """Where in Kafka its records go."""
        return self.spec.to


class Stream(Model):
    """A manifest of kind Stream."""

    apiVersion: Literal["trunkline/v1"]  # noqa: N815
    kind: Literal["Stream"]
    metadata: Metadata
    spec: StreamSpec

    @property
    def inputs(self) -> Sequence[str]:
        """The topics and families that it reads."""
        return self.spec.from_

    @property
    def targets(self) -> Sequence[Target]:
        """Where in Kafka its records go."""
        return self.spec.to


class Sink(Model):
    """A manifest of kind Sink."""

    apiVersion: Literal["trunkline/v1"]  # noqa: N815
    kind: Literal["Sink"]
    metadata: Metadata
    spec: SinkSpec

    @property
    def inputs(self) -> Sequence[str]:
        """The topics and families that it reads."""
        return self.spec.from_

    @property
    def targets(self) -> Sequence[Target]:
        """Where in Kafka its records go."""
        return ()


Manifest = Topic | Connection | Source | Stream | Sink
Pipeline = Source | Stream | Sink
