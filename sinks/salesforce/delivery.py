"""One batch on its way: which records go into which request, and what every one of them gets as its verdict."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sinks.salesforce.outcomes import Refused, Scattered
from trunkline.core.errors import FatalError, code_from
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict


@dataclass(frozen=True, slots=True)
class Row:
    """A record ready to be sent. `place` is its position in the batch, `body` its JSON.

    `identity` is its external id in the form in which Salesforce compares it, None for an insert.
    """

    place: int
    body: bytes
    identity: object | None
    correlation_id: str | None = None
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What one request gave: an outcome for each of its rows, or one for all of them.

    `stop` says that the same would come of the requests that follow, so they are not made.
    """

    outcomes: Sequence[Verdict | Refused] | Scattered
    stop: bool = False


Send = Callable[[Sequence[Row]], Awaitable[Answered]]


def requests_of(rows: Sequence[Row], most: int) -> list[list[Row]]:
    """The rows cut into requests of at most `most`, in order, none with the same external id twice.

    Salesforce refuses all records of a request that share one (DUPLICATE_VALUE, "Duplicate external id specified").
    """
    waves: list[list[Row]] = []
    seen: dict[object, int] = {}
    for row in rows:
        wave = 0
        if row.identity is not None:
            wave = seen.get(row.identity, -1) + 1
            seen[row.identity] = wave
        if wave == len(waves):
            waves.append([])
        waves[wave].append(row)
    return [wave[at : at + most] for wave in waves for at in range(0, len(wave), most)]


async def deliver(rows: Sequence[Row], send: Send, *, most: int) -> dict[int, Verdict]:
    """Sends the rows and gives a verdict for each, by its place.

    A request that is refused for what it holds is halved until the records that are to blame stand alone. A row whose external
    id is that of an earlier row that did not settle is not sent: it would overtake it. Raises `FatalError` when the account
    is refused and no record of the batch took effect; else the others keep their verdicts, and the next call raises it.
    """
    verdicts: dict[int, Verdict] = {}
    waiting: set[object] = set()
    refused: dict[int, Refused] = {}
    stopped: Retry | Refused | None = None
    pending = deque(requests_of(rows, most))
    while pending:
        part = []
        for row in pending.popleft():
            if isinstance(stopped, Refused):
                refused[row.place] = stopped
            elif stopped is not None:
                verdicts[row.place] = stopped
            elif row.identity is not None and row.identity in waiting:
                verdicts[row.place] = Retry("an earlier record with the same external id is not settled yet")
            else:
                part.append(row)
        if not part:
            continue
        answered = await send(part)
        outcomes = answered.outcomes
        if isinstance(outcomes, Scattered):
            if len(part) > 1:
                middle = len(part) // 2
                pending.extendleft([part[middle:], part[:middle]])
            else:
                verdicts[part[0].place] = Dead(
                    outcomes.reason, code=f"salesforce.{code_from(outcomes.code, 'refused')}"
                )
            continue
        for row, outcome in zip(part, outcomes, strict=True):
            if isinstance(outcome, Refused):
                refused[row.place] = outcome
            else:
                verdicts[row.place] = outcome
            if isinstance(outcome, (Retry, Unknown, Refused)) and row.identity is not None:
                waiting.add(row.identity)
        if answered.stop:
            stopped = _for_the_rest(outcomes[0])
    return {**verdicts, **_settled(refused, verdicts)}


def _for_the_rest(outcome: Verdict | Refused) -> Retry | Refused:
    if isinstance(outcome, (Retry, Refused)):
        return outcome
    return Retry("not sent: an earlier request of the same batch got no answer")


def _settled(refused: dict[int, Refused], verdicts: dict[int, Verdict]) -> dict[int, Verdict]:
    """Refused rows as verdicts. Stopping now would forget what the others' verdicts say, so it waits for the next call."""
    if not refused:
        return {}
    if not any(isinstance(verdict, (Ok, Unknown)) for verdict in verdicts.values()):
        first = next(iter(refused.values()))
        raise first.error or FatalError(
            f"Salesforce refuses the request: {first.reason}",
            hint="check the permissions of the app's user, and the object and fields of the sink",
            code="salesforce.refused",
        )
    return {place: Retry(refusal.reason, code="salesforce.refused") for place, refusal in refused.items()}
