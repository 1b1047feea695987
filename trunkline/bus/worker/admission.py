"""Which manifests a worker may judge in its own process.

Judging a manifest imports its plug-in and makes it, and a plug-in of another package may crash, exit or block for ever when that
happens. So each such manifest is judged in the process for trials first. Until that has come to its end the manifest is pending:
what else is applied is not held up by it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

from trunkline.bus.worker.trial import Trials, of_others, part_of
from trunkline.core.errors import RetriableError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.manifests import Connection, Manifest, Project, Topic
from trunkline.core.manifests.findings import PendingError
from trunkline.core.manifests.identity import pipeline_identity

log = get_logger(__name__)
AGAIN_SECONDS = 60.0
"""What was refused is tried again when manifests are judged after so long: a package may have been mended."""

PAUSE_SECONDS = 5.0
"""Before what could not be tried out at all is tried out again."""


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What came of a trial: nothing, or why the manifest must not be judged here."""

    error: TrunklineError | None
    at: float


class Admission:
    """Lets manifests in. `tried` is called on the event loop when more is known."""

    def __init__(self, trials: Trials, tried: Callable[[], None]) -> None:
        self._trials = trials
        self._tried = tried
        self._verdicts: dict[str, _Verdict] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """On the event loop, before anybody is let in."""
        self._loop = asyncio.get_running_loop()

    def admit(self, project: Project, manifest: Manifest) -> None:
        """In any thread. Raises `PendingError` where a trial has to come first, and then what the trial raised."""
        if isinstance(manifest, Topic) or not of_others(manifest):
            return
        key = _identity(project, manifest)
        known = self._verdicts.get(key)
        if known is not None and known.error is None:
            return
        if known is not None and time.monotonic() - known.at < AGAIN_SECONDS:
            assert known.error is not None
            raise known.error.with_traceback(None)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._begin, key, part_of(project, manifest), manifest)
        raise PendingError

    def close(self) -> None:
        """Ends the trials that are under way."""
        for task in list(self._under_way.values()):
            task.cancel()

    def _begin(self, key: str, part: Project, manifest: Manifest) -> None:
        if key not in self._under_way:
            self._under_way[key] = asyncio.create_task(self._try(key, part, manifest), name="admission")

    async def _try(self, key: str, part: Project, manifest: Manifest) -> None:
        error: TrunklineError | None = None
        try:
            await self._trials.attempt(part, manifest, opens=False)
        except RetriableError as raised:  # it was not tried out at all
            log.warning("a manifest could not be tried out", manifest=manifest.metadata.name, reason=str(raised))
            await asyncio.sleep(PAUSE_SECONDS)
            del self._under_way[key]
            self._tried()
            return
        except TrunklineError as raised:
            error = raised
        except Exception as raised:
            log.exception("a manifest could not be tried out", manifest=f"{manifest.kind}/{manifest.metadata.name}")
            error = TrunklineError(
                f"it could not be tried out: {type(raised).__name__}: {raised}", code="plugin.untried"
            )
        self._verdicts[key] = _Verdict(error, time.monotonic())
        del self._under_way[key]
        self._tried()


def _identity(project: Project, manifest: Manifest) -> str:
    """What the judgement follows from."""
    if not isinstance(manifest, Connection):
        assert not isinstance(manifest, Topic)
        return pipeline_identity(project, manifest)
    spec = json.dumps(manifest.spec.model_dump(mode="json", by_alias=True), sort_keys=True)
    return hashlib.sha256(f"{manifest.metadata.name} {spec}".encode()).hexdigest()
