"""What `up` and `run` are asked, for the one worker of a process or for the supervisor of several."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trunkline.bus.memory import DEFAULT_MEMORY


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """What `up` and `run` are asked. Without files the applied manifests are followed."""

    files: tuple[Path, ...]
    workers: int
    ingress: tuple[str, int]
    api: tuple[str, int]
    log_level: str
    log_style: str
    until_finished: bool
    memory: int = DEFAULT_MEMORY
    """Bytes, of each worker."""
    open: bool = False
    """Whether the embedded broker asks nobody who they are."""
