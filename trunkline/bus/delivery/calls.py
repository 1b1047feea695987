"""One call of a sink: a verdict for each record, whatever the plug-in does."""

from __future__ import annotations

from collections.abc import Sequence

from trunkline.core.contracts import Batch, Sink
from trunkline.core.errors import FatalError, RejectedError, RetriableError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.core.verdicts import Dead, Retry, Unknown, Verdict

log = get_logger(__name__)


async def verdicts_of(sink: Sink, batch: Batch, pipeline: str) -> Sequence[Verdict]:
    """The verdicts of one call. Raises `FatalError` where the account is refused, and for any other error of ours."""
    try:
        verdicts = await sink.write(batch)
    except FatalError:
        raise
    except RejectedError as error:
        return [Dead(str(error), error.code)] * len(batch.events)
    except RetriableError as error:
        return [Retry.of(error)] * len(batch.events)
    except TimeoutError:
        return [Unknown("no answer in time", "sink.timeout")] * len(batch.events)
    except TrunklineError as error:
        raise FatalError(error.message, where=error.where, hint=error.hint, code=error.code) from error
    except Exception as error:
        log.exception("the sink raised", pipeline=pipeline)
        return [Unknown(f"{type(error).__name__}: {error}", "sink.raised")] * len(batch.events)
    if len(verdicts) != len(batch.events):
        # I2: one verdict for each record, or none of them counts.
        reason = f"the sink gave {len(verdicts)} verdicts for {len(batch.events)} records"
        return [Unknown(reason, "sink.verdicts")] * len(batch.events)
    return verdicts
