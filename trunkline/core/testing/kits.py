"""What a plug-in's author tells the conformance suites: the other side, its data, and how to make it fail.

A kit is made for each test with an empty folder. What does not exist for a plug-in is said by raising `NotApplicableError` with the reason;
the test is then skipped and shows it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from trunkline.core.contracts import PushSource, Request, Source, SourceEvent


class NotApplicableError(Exception):
    """What a test asks for does not exist for this plug-in; the text says why."""


class Kit:
    """What all kits share.

    `not_secret` names settings fields that look like secrets by their name and are none. The environment is set before the plug-in is
    made: references such as `${env:NAME}` in the configuration find their values there.
    """

    not_secret: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables that the configuration refers to. Asked for after `start`."""
        return {}

    @property
    def secrets(self) -> Sequence[str]:
        """The values that must be shown nowhere: those of `environment`, unless said otherwise."""
        return tuple(self.environment.values())

    @property
    def config(self) -> Any:
        """The manifest's `config`. Asked for after `start`."""
        return {}

    @property
    def connection(self) -> dict[str, Any] | None:
        """The `config` of the manifest's connection, where the plug-in needs one."""
        return None

    async def start(self) -> None:
        """Starts the other side."""

    async def stop(self) -> None:
        """Ends the other side and its connections. Called also when `start` failed."""


class SinkKit(Kit, ABC):
    """The other side of a sink. Records are numbered; record n has the value `value(n)`."""

    @abstractmethod
    def value(self, number: int) -> Any:
        """A good record."""

    @abstractmethod
    def bad_value(self) -> Any:
        """A record that the sink must call dead."""

    @abstractmethod
    async def arrived(self) -> Sequence[int]:
        """The numbers of the records that took effect, once for each effect."""

    @abstractmethod
    async def break_down(self) -> None:
        """The next delivery finds the other side out of order (a 503, a full disk), the one after it finds it well again."""

    @abstractmethod
    async def throttle(self) -> float:
        """The next delivery is told to wait, the one after it succeeds. Returns how many seconds it is told."""

    @abstractmethod
    async def refuse(self) -> None:
        """From now on the credentials, or the permission, are refused."""

    @abstractmethod
    async def hang(self) -> None:
        """From now on deliveries get no answer, until `stop`."""


class SourceKit(Kit, ABC):
    """The other side of a polled source. What happens there is numbered from 0.

    The configuration should make batches small, so that a pass of `happenings` things has several polls.
    """

    happenings: ClassVar[int] = 9
    """How many things happen before the first poll in most tests."""

    begins_at_first_poll: ClassVar[bool] = False
    """Whether the first poll only says where the source begins, since what was before is of no interest."""

    def arrange(self, source: Source) -> None:
        """Last touches to a source that was just made, such as setting its clock."""

    @abstractmethod
    async def happen(self, count: int) -> None:
        """So many more things happen on the other side, with the next numbers."""

    @abstractmethod
    def number(self, event: SourceEvent) -> int:
        """Which thing this event is about."""

    @abstractmethod
    async def happen_badly(self) -> None:
        """Something happens that can't become an event."""

    @abstractmethod
    async def break_down(self) -> None:
        """The next request finds the other side out of order, the one after it finds it well again."""

    @abstractmethod
    async def throttle(self) -> float:
        """The next request is told to wait, the one after it succeeds. Returns how many seconds it is told."""

    @abstractmethod
    async def refuse(self) -> None:
        """From now on the credentials, or the permission, are refused."""

    @abstractmethod
    async def hang(self) -> None:
        """From now on requests get no answer, until `stop`."""


class PushSourceKit(Kit, ABC):
    """The sender's side of a source that receives."""

    def arrange(self, source: PushSource) -> None:
        """Last touches to a source that was just made, such as setting its clock."""

    @abstractmethod
    def request(self, number: int) -> Request:
        """A good request about thing n, signed as the sender signs. The same number gives the same request."""

    @abstractmethod
    def forged(self) -> Request:
        """A request of somebody who doesn't know the secret."""

    @abstractmethod
    def unreadable(self) -> Request:
        """A request of the true sender whose body can't become an event."""


@dataclass(frozen=True, slots=True)
class StepCase:
    """One thing that a step does. `expected` is the value that comes out, a list for several events, or None where it is filtered.

    With `rejects`, the record is refused with a message that holds this text. `target` is the schema of the topic written to.
    """

    config: Any
    schema: Any
    value: Any
    expected: Any = None
    rejects: str | None = None
    target: Any = None


class StepKit(Kit, ABC):
    """What a step does, by examples."""

    @property
    @abstractmethod
    def cases(self) -> Sequence[StepCase]:
        """Examples: at least one that succeeds, and one that is rejected where the step rejects anything."""

    @property
    @abstractmethod
    def misspelt(self) -> tuple[Any, Any, str]:
        """A configuration that names a field which the schema lacks, the schema, and the field's right name."""
