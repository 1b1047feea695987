"""The causes that are not its runtime's: why a pipeline stands still that was told to, or runs an older version than is asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Literal

from trunkline.bus.states import State
from trunkline.bus.worker.wishes import Wish
from trunkline.core.cause import Cause
from trunkline.core.errors import TrunklineError

WANTED_SO: Final = {State.PAUSED: "pipeline.paused", State.STOPPED: "pipeline.stopped"}
"""The states that somebody wanted, with the codes of their causes."""


def wanted_so(pipeline: str, state: State, wish: Wish, since: float) -> Cause:
    """A person wanted it so."""
    return Cause(
        WANTED_SO[state],
        f"{state.lower()} by {wish.by or 'somebody'}",
        hint=f"`trunkline resume {pipeline}` lets it go on",
        since=wish.at or since,
        by=wish.by or None,
    )


def refused(error: TrunklineError, since: float, changed: Literal["manifest", "secret"]) -> Cause:
    """The version that is asked for can't run, because of what `changed`."""
    cause = Cause.of(error, since=since)
    return replace(cause, code="version.refused", error_code=cause.code, reason=f"{_INSTEAD[changed]}: {cause.reason}")


_INSTEAD: Final = {
    "manifest": "the manifest that is applied now can't run, so the version before runs on",
    "secret": "what its secrets hold now can't be used, so it runs on with what they held before",
}
