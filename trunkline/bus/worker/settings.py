"""How a worker is set up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.memory import DEFAULT_MEMORY
from trunkline.bus.names import Names
from trunkline.core.errors import UnavailableError


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker is set up. A port of 0 takes a free one. Without `registry_url` the worker serves a registry itself."""

    kafka: KafkaSettings
    names: Names
    home: Path
    registry_url: str | None = None
    registry_options: dict[str, str] = field(default_factory=dict)
    api: tuple[str, int] = ("127.0.0.1", 0)
    ingress: tuple[str, int] = ("127.0.0.1", 0)
    memory: int = DEFAULT_MEMORY
    explain: Callable[[], UnavailableError | None] = lambda: None
    """Why nobody answers at the cluster's address, where somebody knows better than Kafka's clients."""
