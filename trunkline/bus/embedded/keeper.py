"""Keeping the embedded broker running: started again when it ended, as soon as what ended it is over, and what is wrong said meanwhile.

Nothing ends the keeper but its stop: what it can't foresee it says as well, and looks again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from pathlib import Path

from trunkline.bus.embedded.broker import EmbeddedKafka
from trunkline.bus.embedded.condition import BrokerCondition, State, remove_condition, write_condition
from trunkline.bus.embedded.disk import folder_error, little_room, size
from trunkline.bus.states import reconnect_delay
from trunkline.core.errors import TrunklineError, UnavailableError
from trunkline.core.log import get_logger

log = get_logger(__name__)
LOOK_SECONDS = 1.0
ASK_SECONDS = 2.0
"""A broker that runs is asked so often whether it answers."""
ANSWER_SECONDS = 5.0
SILENT_SECONDS = 10.0
"""After so long without an answer it is said that it gives none."""
HUNG_SECONDS = 60.0
"""After so long without an answer it is killed and started again. Shorter pauses of the JVM or of the machine pass by themselves."""
SAY_SECONDS = 5.0
"""How the broker is is said so often, so that others see that its keeper is there."""
PROVEN_SECONDS = 60.0
"""One that ran for so long is started again at once when it ends; one that ends sooner after a growing wait."""
REPEAT_SECONDS = 300.0
"""What is still wrong is logged again after so long."""


class BrokerKeeper:
    """Keeps one embedded broker, which was started once, until it is told to stop."""

    def __init__(self, broker: EmbeddedKafka) -> None:
        self._broker = broker
        self._home: Path = broker.home
        self._bootstrap = broker.running.bootstrap if broker.running is not None else ""
        self.state: State = "running"
        self._since = time.time()
        self.trouble: TrunklineError | None = None
        """What keeps it down or will, as it was said last."""
        self._free: int | None = None
        self._logged: tuple[str, str] | None = None
        self._logged_at = 0.0
        self._said_at = 0.0
        self._started_at = self._asked_at = self._answered_at = time.monotonic()
        self._unanswered = 0
        self._failures = 0
        self._not_before = 0.0

    async def keep(self, stop: asyncio.Event) -> None:
        """Looks after the broker until `stop`. A start that is under way then is given up."""
        while not stop.is_set():
            looking = asyncio.ensure_future(asyncio.to_thread(self.look_safely))
            stopping = asyncio.ensure_future(stop.wait())
            await asyncio.wait({looking, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not looking.done():
                self._broker.abandon()
            stopping.cancel()
            await asyncio.wait({looking})
            if not looking.cancelled() and (error := looking.exception()) is not None:
                log.error("the embedded broker can't be looked after at the moment", reason=str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), LOOK_SECONDS)
        with contextlib.suppress(OSError):
            remove_condition(self._home)

    def look_safely(self) -> None:
        """One look. What keeps the broker from running, foreseen or not, is in `trouble` afterwards."""
        try:
            self._look()
        except UnavailableError as error:
            self._is_down(error)
        except OSError as error:
            self._is_down(folder_error(error, self._home))
        except TrunklineError as error:
            self._is_down(error)
        except Exception as error:
            unforeseen = f"{type(error).__name__}: {error}"
            if self.trouble is None or self.trouble.message != unforeseen:
                log.exception("the embedded broker could not be looked after")
            self._is_down(UnavailableError(unforeseen, where=str(self._home), code="embedded.start"))

    def retry_at_once(self) -> None:
        """Forget the tries that failed."""
        self._failures, self._not_before = 0, 0.0

    def _look(self) -> None:
        """Raises what keeps the broker from running."""
        broker = self._broker
        if broker.is_alive and broker.running is not None:
            self._look_at_running()
            return
        ended = broker.why_ended()
        if ended is not None and self.state != "down":
            self._is_down(ended)
            if time.monotonic() - self._started_at < PROVEN_SECONDS:
                self._wait_longer()
        broker.require_startable()  # asked at every look: what it names may be over at any moment
        if time.monotonic() < self._not_before:
            return
        self._becomes("starting", self.trouble)
        try:
            running = broker.start()
        except Exception:
            self._wait_longer()
            raise
        self._started_at = self._answered_at = self._asked_at = time.monotonic()
        log.warning(
            "the embedded broker was started again, at the same address", pid=running.pid, address=running.bootstrap
        )
        self._becomes("running", None)

    def _look_at_running(self) -> None:
        broker = self._broker
        broker.require_folder()
        if broker.announce():
            log.warning(
                "the announcement of the embedded broker was damaged, and is written again", home=str(self._home)
            )
        if time.monotonic() - self._asked_at >= ASK_SECONDS:
            self._asked_at = time.monotonic()
            if broker.answers(ANSWER_SECONDS):
                self._answered_at, self._unanswered = time.monotonic(), 0
            else:
                self._unanswered += 1
        silent = time.monotonic() - self._answered_at
        if self._unanswered >= 3 and silent >= HUNG_SECONDS:
            log.error("the embedded broker does not answer, and is killed and started again", seconds=round(silent))
            broker.end_hung()
            self._unanswered = 0
            return
        if self._unanswered >= 2 and silent >= SILENT_SECONDS:
            self._becomes("silent", self._silence(silent))
            return
        if time.monotonic() - self._started_at > PROVEN_SECONDS:
            self._failures = 0
        room = broker.room()
        self._free = room.bytes
        self._becomes("running", little_room(room, self._home) if room.little else None)

    def _wait_longer(self) -> None:
        """A broker that does not come up, or soon ends again, costs a processor's time with each try."""
        self._not_before = time.monotonic() + reconnect_delay(self._failures)
        self._failures += 1

    def _silence(self, seconds: float) -> UnavailableError:
        return UnavailableError(
            f"its process runs and has not answered for {seconds:.0f} s",
            where=str(self._broker.log_file),
            hint=f"it is killed and started again after {HUNG_SECONDS:.0f} s, which loses nothing: "
            "is the machine out of memory, its disk stuck, or the process stopped?",
            code="embedded.silent",
        )

    def _is_down(self, error: TrunklineError) -> None:
        with contextlib.suppress(OSError):
            self._free = self._broker.room().bytes
        self._becomes("down", error)

    def _becomes(self, state: State, trouble: TrunklineError | None) -> None:
        """Notes how the broker is: in the log where that is news, and for other processes."""
        news = state != self.state
        if news and {state, self.state} != {"down", "starting"}:
            self._since = time.time()
        # Whoever asks is told what keeps it down now, not what it was at first.
        news = news or _code(trouble) != _code(self.trouble)
        self.state, self.trouble = state, trouble
        self._log(state, trouble)
        if news or time.time() - self._said_at >= SAY_SECONDS:
            self._said_at = time.time()
            with contextlib.suppress(OSError):  # a folder that is gone or can't be written: the log has it
                write_condition(self._home, self._condition())

    def _condition(self) -> BrokerCondition:
        trouble = self.trouble
        return BrokerCondition(
            keeper=os.getpid(),
            bootstrap=self._bootstrap,
            state=self.state,
            since=self._since,
            at=time.time(),
            free=self._free,
            code=_code(trouble),
            message=trouble.message if trouble is not None else None,
            where=trouble.where if trouble is not None else None,
            hint=trouble.hint if trouble is not None else None,
        )

    def _log(self, state: State, trouble: TrunklineError | None) -> None:
        """Each trouble once, and again after a while where it lasts."""
        if trouble is None:
            if self._logged is not None and state == "running":
                self._logged = None
                log.info("the embedded broker is well again")
            return
        said = (state, trouble.code)
        if state == "starting" or (said == self._logged and time.monotonic() - self._logged_at < REPEAT_SECONDS):
            return
        self._logged, self._logged_at = said, time.monotonic()
        free = {"free": size(self._free)} if self._free is not None else {}
        event = (
            "the embedded broker runs, but not for long" if state == "running" else f"the embedded broker is {state}"
        )
        level = log.warning if state == "running" else log.error
        level(event, reason=trouble.message, where=trouble.where, hint=trouble.hint, code=trouble.code, **free)


def _code(trouble: TrunklineError | None) -> str | None:
    return trouble.code if trouble is not None else None
