"""How far the sources of a worker have come, as metrics: what is not known now, as while nothing moves, has no series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from trunkline.bus.states import State
from trunkline.bus.worker.host import PipelineHost
from trunkline.core.metrics import Sample


class SourceMetrics:
    """The samples of these hosts' splits. On the event loop."""

    def __init__(self, hosts: Callable[[], Iterable[PipelineHost]]) -> None:
        self._hosts = hosts

    def samples(self) -> Iterator[Sample]:
        """Of each split that tells how much there is, how much of it was read, and how long the rest takes."""
        for host in self._hosts():
            for one in host.progress:
                yield "trunkline_source_progress_ratio", (host.name, one.split), one.share
                if one.seconds_left is not None and host.state is State.RUNNING:
                    yield "trunkline_source_left_seconds", (host.name, one.split), one.seconds_left
