"""The contracts of plug-ins: `Source`, `PushSource`, `Step` and `Sink`.

A plug-in is a class with a settings class beside it. It is made from validated settings and never sees Kafka: the engine
polls, publishes, batches, retries, dead-letters and commits. All coroutines run on the worker's event loop and must not
block it (hand blocking calls to `asyncio.to_thread`); a step runs on its stream's own thread and does no input or output.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar

import structlog.stdlib

from trunkline.core.event import Event
from trunkline.core.plain import PlainWork
from trunkline.core.quota import NO_QUOTA, Quota
from trunkline.core.redaction import redact
from trunkline.core.settings import Settings
from trunkline.core.uses import Columns, Use
from trunkline.core.verdicts import Verdict

Position = dict[str, Any]
"""Where a source split stands: JSON-able, at most some kilobytes, opaque to the engine."""

S = TypeVar("S", bound=Settings)


class Plugin:
    """What all plug-ins share.

    `settings_type` is the class of the manifest's `config`; `connection_type` is the class of the `Connection` it needs, or
    None where it needs none. `summary` is one sentence for listings; its folder's README says more.
    """

    settings_type: ClassVar[type[Settings]]
    connection_type: ClassVar[type[Settings] | None] = None
    summary: ClassVar[str]

    def __init__(self, settings: Any, connection: Any = None) -> None:
        self.settings = settings
        self.connection = connection

    def uses(self) -> Sequence[Use]:
        """What of an event's value the settings name, so that `validate` can check it against the schemas of the topics.

        Of a sink these are events that it gets, of a source those that it gives. A step checks in `prepare`.
        """
        return ()


@dataclass(frozen=True, slots=True)
class PluginContext:
    """What the engine tells a source or a sink when it opens it.

    `data` is a folder of this pipeline's own on this worker, for scratch files: it may be empty after a move to another worker.
    `quota` takes what the plug-in learns of the account's limits.
    """

    namespace: str
    pipeline: str
    data: Path
    log: structlog.stdlib.BoundLogger
    quota: Quota = NO_QUOTA


# --- doors in ---------------------------------------------------------------------------------------------------------


# Not frozen: a frozen dataclass of eleven fields takes three times as long to make, and a file source makes one for each row.
@dataclass(slots=True)
class SourceEvent:
    """Something that happened elsewhere, about to be published.

    `value` must fit the Avro schema of its topic (strings are cast to the schema's numbers, dates and nulls only where the
    source says so). `id` is stable for the same happening where the source can tell; else the engine makes one. `type` and
    `subject` are CloudEvents attributes; `source` defaults to `/<namespace>/<pipeline>`. `raw` are the bytes as received, kept
    in quarantine if the value does not fit its schema, and `place` says where they came from (file and line, request id).
    """

    value: Any
    id: str | None = None
    type: str | None = None
    source: str | None = None
    subject: str | None = None
    time: datetime | None = None
    key: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    raw: bytes | None = None
    place: str | None = None


@dataclass(frozen=True, slots=True)
class RejectedInput:
    """Input that can't become an event: kept raw in quarantine (the source's dead-letter topic) with the reason and the place.

    Secrets in the reason are blanked.
    """

    raw: bytes
    reason: str
    place: str
    correlation_id: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", redact(self.reason))


@dataclass(frozen=True, slots=True)
class Progress:
    """How much of what a source knows to be there it has read: `done` of `total`, in any unit (bytes, rows), of `what`.

    What comes later may make `total` larger. The engine works out the share, the pace and the time left.
    """

    done: float
    total: float
    what: str

    @property
    def share(self) -> float:
        """0 to 1."""
        return min(1.0, self.done / self.total) if self.total > 0 else 1.0


@dataclass(frozen=True, slots=True)
class SourceBatch:
    """What one poll found. All of it, and `position`, are written in one transaction.

    `pause` is how many seconds the source wants to wait before the next poll: 0 when there is more now. `finished` says that
    a bounded source has come to its end. `progress` is told where the source can tell it.
    """

    events: Sequence[SourceEvent] = ()
    rejected: Sequence[RejectedInput] = ()
    position: Position | None = None
    pause: float = 0.0
    finished: bool = False
    progress: Progress | None = None


class Producer(Plugin):
    """What sources say of the values that they give, for casts to the topic's schema and for checks against it."""

    @property
    def textual(self) -> bool:
        """Whether values are text that has to be cast to the schema's types, as those of CSV are."""
        return False

    @property
    def extra_columns(self) -> Literal["refuse", "ignore"]:
        """What becomes of fields that the topic's schema does not have."""
        return "refuse"

    @property
    def default_schema(self) -> str | None:
        """The shipped schema of its values, such as `trunkline/schedule_tick.avsc`; None where they are of the topic's schema."""
        return None

    @property
    def columns(self) -> Columns | None:
        """The fields of every value, where the settings name them; None where only the data tell."""
        return None


class Source(Producer, ABC):
    """A door in that asks: five verbs.

    The engine calls `splits` once after `open`, then `poll` and `committed` for each split it owns, one call at a time a split.
    """

    async def open(self, context: PluginContext) -> None:
        """Connects and probes. Raises `ConfigurationError` or `FatalError` for what a person must mend, else `RetriableError`."""

    def splits(self) -> Sequence[str]:
        """The names of the parts that different workers may poll side by side, each with a position of its own."""
        return ("0",)

    @abstractmethod
    async def poll(self, split: str, position: Position | None) -> SourceBatch:
        """The next events after `position` (None at the very first poll), at most some thousand.

        Must give the same events for the same position where the other side allows. Raises `RetriableError` for what may pass.
        """

    async def committed(self, split: str, position: Position) -> None:
        """Kafka acknowledged everything up to `position`: now files may be moved and messages be acknowledged. May be called again."""

    async def close(self) -> None:
        """Releases everything. Called once, also after a failed `open`."""


@dataclass(frozen=True, slots=True)
class Request:
    """An HTTP request that a push source is asked to judge. Header names are lower case; `body` is complete and within limits."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    remote: str


@dataclass(frozen=True, slots=True)
class Reception:
    """A push source's judgement of one request.

    With `events` or `rejected`, the engine publishes first and then answers `status` (202); a broker that can't acknowledge
    becomes a 503. Without, `status` is the answer as it stands (401, 413, 400). `dedupe_key` names the delivery for
    `dedupe_window` seconds: a known one gets 200 with `duplicate: true` and makes no new event. `reply` is a body of the
    plug-in's own (a challenge);
    `reason` goes to the log and the answer; secrets in it are blanked.
    """

    status: int
    events: Sequence[SourceEvent] = ()
    rejected: Sequence[RejectedInput] = ()
    dedupe_key: str | None = None
    dedupe_window: float = 0.0
    reply: bytes | None = None
    reply_type: str = "application/json"
    reason: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reason:
            object.__setattr__(self, "reason", redact(self.reason))


class PushSource(Producer, ABC):
    """A door in that is knocked at: the engine listens, limits and reads; the plug-in judges."""

    @property
    @abstractmethod
    def path(self) -> str:
        """The path that requests come to, such as `/hooks/github`."""

    @property
    @abstractmethod
    def max_body(self) -> int:
        """The largest body accepted, in bytes, both on the wire and decompressed."""

    @property
    def anonymous(self) -> bool:
        """Whether requests are taken from whoever sends them. Then the engine keeps web pages out by the name that they ask for."""
        return False

    async def open(self, context: PluginContext) -> None:
        """Resolves secrets. Raises `ConfigurationError` for what a person must mend."""

    @abstractmethod
    async def receive(self, request: Request) -> Reception:
        """Judges one request. Never raises for what a sender may send."""

    async def close(self) -> None:
        """Releases everything."""


# --- the work between -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepContext:
    """What a step is told before it runs: the Avro schema (JSON form) of the values it will get, or None if it is not known.

    `where` points at the step in its manifest, for messages. `target` is the schema of the topic that the stream writes to when
    there is exactly one. `python_path` is the folder of the manifest, from which a `python` step may import. Without `run_code`
    the manifest is only checked: code that it names may be read and must not be run.
    """

    pipeline: str
    schema: Any | None
    where: str
    target: Any | None = None
    python_path: Path | None = None
    run_code: bool = True


class Step(Plugin, ABC):
    """One piece of work on one event. Pure: the same event gives the same result, so that a replay repeats it.

    `shorthand` names the settings field that a bare value stands for: `filter: EXPR` is `filter: {when: EXPR}`. `changes` says
    whether it may give another value than it got: only with a schema can such a one be written.
    """

    shorthand: ClassVar[str | None] = None
    changes: ClassVar[bool] = True

    @property
    def own_code(self) -> str | None:
        """The code of the manifest's author that it runs, as `module:function`; None (the default) where it runs none."""
        return None

    @classmethod
    def parse(cls, raw: Any) -> Settings:
        """The settings from what the manifest says. Raises pydantic's ValidationError."""
        if cls.shorthand is not None and not (isinstance(raw, Mapping) and cls.shorthand in raw):
            raw = {cls.shorthand: raw}
        return cls.settings_type.model_validate(raw)

    @classmethod
    def without_files(cls, raw: Any, folder: Path) -> Any:
        """What the manifest says, with the content of files of its `folder` that it names put in place of their names.

        A manifest is applied without the files beside it. Raises `ConfigurationError` for one that can't be read.
        """
        return raw

    @abstractmethod
    def prepare(self, context: StepContext) -> Any | None:
        """Compiles expressions, checks them against the input schema, and returns the schema of the output (None: not known).

        Raises `ConfigurationError` with the place in the manifest. Called once before the first event, and by `validate`.
        """

    @abstractmethod
    def process(self, event: Event) -> Event | list[Event] | None:
        """The event changed in place, several events, or None where it is filtered. Raises `RejectedError` for a bad record."""

    def plain(self) -> PlainWork | None:
        """The same work on the value alone, for speed; None (the default) where the step needs the event or makes several.

        Called after `prepare`.
        """
        return None


# --- doors out --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Promises:
    """What a sink can promise, which decides how the engine treats it.

    `idempotent`: writing a record twice has one effect. `max_batch`: records a call, 1 for one call a record. `contiguous`: a
    batch is a gapless range of one partition, planned before the effect and built again alike after a crash. `patience`: how
    many seconds a call may take where the other side works in its own time (a job in a queue); `delivery.timeout` where that is more.
    """

    idempotent: bool
    max_batch: int = 1
    contiguous: bool = False
    patience: float = 0.0


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one call. `name` is set for contiguous sinks: unique, the same when the same range is built again, and safe
    as a file name. `attempt` counts from 1. `rebuilt` says that this range was begun before, by a run that did not live to commit it:
    what it began may still be there, or under way.
    """

    events: Sequence[Event]
    name: str = ""
    attempt: int = 1
    rebuilt: bool = False


class Sink(Plugin, ABC):
    """A door out: three verbs. Several `write` calls may be under way at once, never two with the same key where order is kept."""

    promises: Promises
    """What the class promises with default settings; an instance whose settings decide otherwise sets its own, before `open`."""

    async def open(self, context: PluginContext) -> None:
        """Connects and probes. Raises `ConfigurationError` or `FatalError` for what a person must mend, else `RetriableError`."""

    @abstractmethod
    async def write(self, batch: Batch) -> Sequence[Verdict]:
        """Delivers, and returns one verdict for each event in their order. The engine retries, dead-letters and commits.

        Raises `FatalError` when the account or the credentials are refused: the pipeline stops and nothing is dead-lettered.
        Any other exception is taken as `Unknown` for every record of the batch.
        """

    async def close(self) -> None:
        """Releases everything. Called once, also after a failed `open`."""
