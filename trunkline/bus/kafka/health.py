"""Whether a worker's cluster can be used, known within seconds and also while nothing is read or written.

Clients alone do not tell. An idle one may notice nothing for minutes, one that was refused says so once and then tries again silently,
and none says when it has recovered. So the cluster is asked all the time, and what clients report only makes it be asked at once, by
a client made for that, which signs in anew (`ping`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from confluent_kafka import KafkaException

from trunkline.bus.kafka.probe import ping
from trunkline.bus.kafka.refusals import KINDS, KafkaUnusableError, Said
from trunkline.bus.kafka.settings import KafkaSettings, serve_admins
from trunkline.core.errors import TrunklineError, UnavailableError
from trunkline.core.log import get_logger
from trunkline.kafkaclient import AdminClient

log = get_logger(__name__)
EVERY_SECONDS: Final = 2.0
ASK_SECONDS: Final = 2.5
PROBE_SECONDS: Final = 2.0
QUIET_SECONDS: Final = 6.0
"""A broker that does not answer may be held up for a moment: only after this long without any answer is that trouble."""
_REPEAT_SECONDS: Final = 60.0
_ASKED_FOR: Final = "__consumer_offsets"
_WENT_AWAY: Final = {"kafka.refused", "kafka.disconnected"}
"""What a broker that answered before does when it stops or restarts."""


class KafkaHealth:
    """Watches a cluster for a worker. How to use it:

        health = KafkaHealth(kafka_settings)
        settings = health.settings      # all clients of the worker are made from these; `settings.of(pipeline)` for a pipeline's
        health.start()                  # a thread that asks each EVERY_SECONDS
        ...
        error = health.trouble()        # None, or why nothing can run; costs nothing, from any thread, at any time
        health.on_change(wake)          # told when trouble begins, has another cause, or ends; on the watching thread
        health.close()

    `trouble()` names the cause within 10 s of its begin and is None within 10 s of its end. It is about the cluster as a whole: one
    broker of three that is away is no trouble, since its partitions have other leaders, nor is a connection closed for being idle.
    What is refused to one pipeline alone (a right on its topic) comes from that pipeline's calls, as an error of theirs.

    The error is an `UnavailableError` (one of `refusals.KINDS`; exit code 3) with `since`, the Unix time at which it began. It is
    retriable: clients reconnect by themselves, so a pipeline need not be restarted for it. One that restarts anyway, because a call
    failed meanwhile, should show this error instead of that of its call (which says only "transport failure"), and start again when
    `on_change` tells that it ended.

    `explain` may know better than clients can why nobody answers, such as who runs the broker: its error is told in place of theirs.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        every: float = EVERY_SECONDS,
        explain: Callable[[], UnavailableError | None] = lambda: None,
    ) -> None:
        self.settings = replace(settings, health=self)
        self._every = every
        self._explain = explain
        self._error: KafkaUnusableError | None = None
        self._answered_at: float | None = None
        self._begun = time.monotonic()
        self._answered = self._begun
        self._logged = 0.0
        self._doubted = False
        """A client reported an error since the cluster was last asked anew."""
        self._wake = threading.Event()
        self._closing = False
        self._listeners: list[Callable[[], None]] = []
        self._admin: AdminClient | None = None
        self._thread: threading.Thread | None = None

    # --- what others ask ---

    def trouble(self) -> KafkaUnusableError | None:
        """Why the cluster can't be used now, or None."""
        return self._error

    @property
    def answered_at(self) -> float | None:
        """When the cluster last answered (Unix seconds); None where it never has."""
        return self._answered_at

    def on_change(self, listener: Callable[[], None]) -> None:
        """Calls `listener` on the watching thread when trouble begins, has another cause, or ends. It must not wait or raise."""
        self._listeners.append(listener)

    def heard(self, said: Said) -> None:
        """A client reports an error: the cluster is asked at once."""
        self._doubted = True
        if self._error is None:
            self._wake.set()

    # --- watching ---

    def start(self) -> None:
        """Begins to watch."""
        self._thread = threading.Thread(target=self._watch, name="kafka-health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends watching; a question that is under way is not waited for."""
        self._closing = True
        self._wake.set()

    def _watch(self) -> None:
        while not self._closing:
            serve_admins()
            begun = time.monotonic()
            try:
                error = self._asked()
            except Exception:
                # A watch that dies would say for ever what it said last.
                log.exception("the watch over Kafka broke; it goes on")
            else:
                self._note(error)
            # Clients that report all the time, each of hundreds, do not make it ask all the time.
            if not self._closing and self._wake.wait(max(0.2, self._every - (time.monotonic() - begun))):
                self._wake.clear()
        self._admin = None  # here, and not where the collector finds it

    def _asked(self) -> KafkaUnusableError | None:
        """Asks the cluster: by the client that stands, unless there is a doubt that only signing in anew settles."""
        if not self._doubted and self._error is None and self._stands():
            return None
        self._doubted = False
        try:
            ping(self.settings_of_probe, PROBE_SECONDS)
        except KafkaUnusableError as error:
            return error
        except TrunklineError as error:
            return KafkaUnusableError(error.message, hint=error.hint, code=error.code)
        return None

    @property
    def settings_of_probe(self) -> KafkaSettings:
        """Those of the worker, of whose clients it is not told: the watch is no cause for doubt of its own."""
        return replace(self.settings, health=None)

    def _stands(self) -> bool:
        """Whether the administrator's client that the whole worker shares is answered: another one would cost threads."""
        try:
            self._admin = self._admin or self.settings.admin()
            # Any broker answers this, in a few bytes, whoever asks and whether there is such a topic or not.
            return bool(self._admin.list_topics(_ASKED_FOR, timeout=ASK_SECONDS).brokers)
        except (KafkaException, TrunklineError):
            return False

    def _note(self, error: KafkaUnusableError | None) -> None:
        now, moment = time.monotonic(), time.time()
        before = self._error
        if error is None:
            self._answered, self._answered_at, self._error = now, moment, None
            if before is not None:
                log.warning(
                    "Kafka can be used again", code=before.code, seconds=round(moment - (before.since or moment))
                )
        else:
            if error.code == "kafka.timeout" and before is None and now - self._answered < QUIET_SECONDS:
                self._wake.set()  # asked again at once
                return
            self._error = self._with_history(error, before)
            if before is None or before.code != self._error.code or now - self._logged > _REPEAT_SECONDS:
                self._logged = now
                log.warning("Kafka can't be used", code=self._error.code, reason=self._error.message)
        if (before.code if before else None) != (self._error.code if self._error else None):
            for listener in self._listeners:
                listener()

    def _with_history(self, error: KafkaUnusableError, before: KafkaUnusableError | None) -> KafkaUnusableError:
        """The error with the time of its begin, and in the words of who knows its cause; of a broker that answered before, it is said that
        it went away."""
        known = self._explain()
        if known is not None:
            error = KafkaUnusableError(known.message, where=known.where, hint=known.hint, code=known.code)
            error.passes = True
        elif self._answered_at is not None and error.code in _WENT_AWAY:
            kind = KINDS["kafka.away"]
            error = KafkaUnusableError(
                f"the Kafka broker has gone away: {error.message}", hint=kind.hint, code=kind.code
            )
        error.since = before.since if before is not None else self._answered_at or time.time()
        return error
