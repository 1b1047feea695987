"""Why a pipeline stands still, waits or tries again: one object, told alike by status, metric, trace and log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from trunkline.core.errors import TrunklineError
from trunkline.core.redaction import redact


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause. It exists as long as what it tells of: the next success, or a person, ends it.

    `code` is stable and dotted, and a runbook explains it. `since` and `next_try` are Unix seconds. What does not apply is None or
    empty: a call that is tried again has `attempt` of `attempts`, a key that is held back has counts, a budget has an account.
    Secrets in reason and hint are blanked.
    """

    code: str
    reason: str
    hint: str | None = None
    since: float = 0.0
    attempt: int | None = None
    """How many tries have failed; `attempts` is how many there are, None where they don't end."""
    attempts: int | None = None
    next_try: float | None = None
    error_code: str | None = None
    """The code of the last error underneath, where `code` names what follows from it: an open breaker, a parked key."""
    records: int = 0
    """Records that were tried and are to be tried again."""
    breaker: str = ""
    """How the breaker of the account stands: `closed`, `half-open` or `open`; empty where there is none."""
    parked_keys: int = 0
    parked_records: int = 0
    account: str | None = None
    """Whose budget is waited for: the name of a `Connection`."""
    limit: str | None = None
    """Which of its limits: as the manifest spells it (`per_day`), or as the account itself names it."""
    by: str | None = None
    """Who wanted it so, where a person did."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", redact(self.reason))
        if self.hint:
            object.__setattr__(self, "hint", redact(self.hint))

    @classmethod
    def of(
        cls, error: TrunklineError, *, since: float, attempt: int | None = None, next_try: float | None = None
    ) -> Cause:
        """The cause that an error is."""
        reason = f"{error.where}: {error.message}" if error.where else error.message
        return cls(error.code, reason, error.hint, since, attempt, next_try=next_try)

    def as_dict(self) -> dict[str, Any]:
        """The cause as data, without what does not apply."""
        found = {name: getattr(self, name) for name in _FIELDS}
        return {name: value for name, value in found.items() if value not in _NOTHING or name in {"code", "reason"}}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Cause:
        """The cause in such data; fields of a newer version are left out."""
        return cls(**{name: value for name, value in data.items() if name in _FIELDS})

    def says_as(self, other: Cause | None) -> bool:
        """Whether it is the same trouble as another, however often it was tried meanwhile."""
        return other is not None and (self.code, self.reason, self.account) == (other.code, other.reason, other.account)


_FIELDS = tuple(one.name for one in fields(Cause))
_NOTHING: tuple[Any, ...] = (None, "", 0)
