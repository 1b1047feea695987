"""When a pipeline that failed is tried again, and what may have mended it meanwhile.

Manifests, topics and secrets of a watched store tell when they change. Most of what a person mends tells nobody: a right that was
granted, an account that was opened again, a schema that was registered. Only another try shows that, so one is made every few seconds.
"""

from __future__ import annotations

from trunkline.bus.states import State, reconnect_delay, restart_delay, retry_delay
from trunkline.core.errors import (
    ConfigurationError,
    DefectError,
    FatalError,
    HaltError,
    RetriableError,
    TrunklineError,
    UnavailableError,
)

CROWD_SECONDS = 0.2
"""So much of a worker's time at the least has each of the pipelines that failed on it."""
LACKING = ("plugin.", "python.", "secret.")
"""What the codes of errors begin with that may be a matter of this worker alone: another one may have what it lacks."""
MISSING = "topic.missing"
"""What the watch over topics tells the end of."""
UNSAVED = "deadletters.failed"
"""A dead letter can't be saved. Each try delivers the records behind it once more, since no offset passes it: so it is not tried soon."""
_REGISTERED = ("schema.", "registry.")
"""What the codes of configuration errors begin with that are mended in the registry, not in a manifest."""


def mended_outside(error: TrunklineError) -> bool:
    """Whether what a pipeline failed with is mended where nothing tells us of it, so that only another try shows that it is."""
    if isinstance(error, ConfigurationError):
        return error.code.startswith(_REGISTERED)
    if isinstance(error, (HaltError, DefectError)) or error.code in {MISSING, UNSAVED}:
        return False
    return isinstance(error, FatalError) and not error.code.startswith(LACKING)


def may_fail_again(error: TrunklineError) -> bool:
    """Whether another run may fail with the same at once, so that its beginning does not show that it is over.

    Of Kafka's trouble the watch over it tells the end.
    """
    return mended_outside(error) or (state_after(error) is State.RESTARTING and not error.code.startswith("kafka."))


def state_after(error: TrunklineError) -> State:
    """Where a pipeline stands that failed with this: what may pass is tried again, anything else a person must mend."""
    return State.RESTARTING if isinstance(error, (RetriableError, UnavailableError)) else State.FAILED


def next_try(
    error: TrunklineError, failures: int, *, lasting: float = 0.0, failed: int = 1
) -> tuple[State, float | None]:
    """The state of a pipeline after so many failures in a row, and the seconds until it is tried again; None for not by itself.

    It has not worked for `lasting` seconds, and is one of `failed` on its worker.
    """
    soon = max(retry_delay(lasting), failed * CROWD_SECONDS)
    state = state_after(error)
    if state is State.RESTARTING:
        after = getattr(error, "after", None) or 0.0
        return state, max(after, min(reconnect_delay(failures - 1), soon))
    if isinstance(error, HaltError) or error.code == MISSING:
        return state, None
    wait = restart_delay(failures)
    return state, min(wait, soon) if mended_outside(error) else wait
