"""How a worker is set up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.memory import DEFAULT_MEMORY
from trunkline.bus.names import Names
from trunkline.core.errors import UnavailableError
from trunkline.core.secret import guarded
from trunkline.core.serving.doors import Doors


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker is set up. A port of 0 takes a free one. Without `registry_url` the worker serves a registry itself."""

    kafka: KafkaSettings
    names: Names
    home: Path
    registry_url: str | None = field(default=None, repr=False)
    """It may hold a password."""
    registry_options: Mapping[str, Any] = field(default_factory=dict)
    """What is a secret among them becomes a `Secret`."""
    api: tuple[str, int] = ("127.0.0.1", 0)
    ingress: tuple[str, int] = ("127.0.0.1", 0)
    doors: Doors = field(default_factory=Doors)
    """TLS, and the names under which API and ingress are known."""
    memory: int = DEFAULT_MEMORY
    explain: Callable[[], UnavailableError | None] = lambda: None
    """Why nobody answers at the cluster's address, where somebody knows better than Kafka's clients."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "registry_options", guarded(self.registry_options))
