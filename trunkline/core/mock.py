"""Local stand-ins for external systems that speak the vendor's protocol: for demos, tests and `trunkline mock`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from trunkline.core.settings import Settings


class Mock(ABC):
    """A server on this machine's loopback that behaves as the vendor's would, and can be told to fail.

    `settings_type` says what can be set. After `start`, `url` is where it listens and `environment` are the variables under
    which an example's manifests expect it.
    """

    settings_type: ClassVar[type[Settings]]
    summary: ClassVar[str]

    def __init__(self, settings: Any) -> None:
        self.settings = settings

    @abstractmethod
    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens. Port 0 takes a free one."""

    @abstractmethod
    async def stop(self) -> None:
        """Ends the server and its connections."""

    @property
    @abstractmethod
    def url(self) -> str:
        """Where it listens."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Variables (addresses, throw-away credentials, paths of key files) for the manifests that use it."""

    @abstractmethod
    def contents(self) -> Any:
        """What has arrived so far, JSON-able, for people to look at: rows, messages, files."""

    @abstractmethod
    def fail(self, times: int, kind: str = "unavailable") -> None:
        """The next `times` deliveries fail as the vendor fails: `unavailable` (503), `throttled` (429), `denied` (401)."""
