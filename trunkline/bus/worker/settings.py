"""How a worker is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.memory import DEFAULT_MEMORY
from trunkline.bus.names import Names


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
