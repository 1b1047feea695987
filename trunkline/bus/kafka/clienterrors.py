"""What Kafka's clients report of themselves, in our log: each cause at once, soon after with all whom it touches, then once a minute.

While a broker is away every client tries again several times a second, and a worker has hundreds. What a person needs is the cause,
the address, and how many pipelines are touched.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from confluent_kafka import KafkaError

from trunkline.bus.kafka.errors import translate
from trunkline.bus.kafka.refusals import Said, classify
from trunkline.core.log import get_logger

log = get_logger(__name__)
REPEAT_SECONDS: Final = 60.0
SOON_SECONDS: Final = 5.0
"""The second line about a cause comes sooner: it names the pipelines, where the first one has only who was the first to report."""
_MOST_CAUSES: Final = 1000
_Cause = tuple[str, str, str, int]
"""Our code, address, topic, and Kafka's code."""
_MOST_NAMED: Final = 5


@dataclass(slots=True)
class _Held:
    """What was reported of one cause since the last line about it."""

    said_at: float
    pause: float = SOON_SECONDS
    times: int = 0
    pipelines: set[str] = field(default_factory=set)


class ClientErrors:
    """The log of clients' errors. Used by all threads that clients call back on."""

    def __init__(self, logger: Any = log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log, self._clock = logger, clock
        self._held: dict[_Cause, _Held] = {}
        self._lock = threading.Lock()

    def tell(self, said: Said, bootstrap: str, pipeline: str = "", about: str = "") -> None:
        """A client of a pipeline (or of the worker itself) reports an error; `about` is the topic it is about, if any."""
        if said.code == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 (librdkafka's own codes have no other name)
            self._log.debug("a Kafka client has no connection", pipeline=pipeline)  # why is reported of each broker
            return
        found = classify([said], bootstrap)
        code = found.kind.code if found is not None else translate(KafkaError(said.code), "").code
        address = found.address if found is not None else said.address or bootstrap
        with self._lock:
            held = self._due((code, address, about, said.code), pipeline)
        if held is None:
            return
        fields: dict[str, Any] = {"code": code, "address": address, "error": said.text}
        if about:
            fields["topic"] = about
        if held.pipelines:
            fields["pipelines" if len(held.pipelines) > 1 else "pipeline"] = _named(held.pipelines)
        if held.times > 1:
            fields["times"] = held.times
        self._log.warning("a Kafka client can't do its work", **fields)

    def _due(self, cause: _Cause, pipeline: str) -> _Held | None:
        """What is to be said now of a cause that was reported again; None where that has to wait."""
        now = self._clock()
        before = self._held.get(cause)
        if before is None and len(self._held) >= _MOST_CAUSES:
            self._held.clear()
        held = before or _Held(now)
        held.times += 1
        if pipeline:
            held.pipelines.add(pipeline)
        if before is not None and now - before.said_at < before.pause:
            return None
        self._held[cause] = _Held(now, SOON_SECONDS if before is None else REPEAT_SECONDS)
        return held


def _named(pipelines: set[str]) -> str:
    names = sorted(pipelines)
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
