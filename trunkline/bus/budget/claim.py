"""Claims: what workers write to the budget topic, and what a claim may say."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import orjson

from trunkline.core.errors import ConfigurationError
from trunkline.core.quota import Notice

VERSION = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """What an account allows at the most; None where it does not say."""

    per_second: int | None = None
    per_minute: int | None = None
    per_day: int | None = None
    concurrent: int | None = None

    def __bool__(self) -> bool:
        return any(limit is not None for limit in (self.per_second, self.per_minute, self.per_day, self.concurrent))


@dataclass(frozen=True, slots=True)
class Want:
    """What a worker could use: requests a second, calls at once, and requests in the time of its next slice."""

    second: int = 0
    concurrent: int = 0
    requests: int = 0


@dataclass(frozen=True, slots=True)
class Statement:
    """What the account itself says: `used` of `limit` requests, counted anew, or to be asked for again, in `reset` seconds (None: it
    did not say). `name` is what the account calls this limit.

    `total` is how many requests all workers together had spent by then, as far as the one who asked knew: the difference to what
    they spend later is what the account will have counted since.
    """

    used: int
    limit: int
    reset: float | None
    total: int
    name: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """One worker's word on one account, for the `lease` seconds from when it was written.

    `second` and `concurrent` are shares of those limits. `spent` and `allow` count requests since the worker's first: it has begun
    `spent` and may begin `allow`. `before` is `spent` at the beginning of the day that starts at `day` (Unix seconds). `timeout` is
    how long a call may take. `hold` asks everyone to send nothing for so many seconds; `notice` is why.
    """

    account: str
    worker: str
    run: str
    seq: int
    limits: Limits = Limits()
    lease: float = 5.0
    timeout: float = 0.0
    weight: int = 0
    waiting: int = 0
    want: Want = field(default_factory=Want)
    second: int = 0
    concurrent: int = 0
    spent: int = 0
    allow: int = 0
    day: float = 0.0
    before: int = 0
    hold: float = 0.0
    notice: Notice | None = None
    said: Statement | None = None

    @property
    def key(self) -> bytes:
        """The key in the budget topic: the latest word of each worker on each account is kept."""
        return f"{self.account}/{self.worker}".encode()

    def to_record(self) -> bytes:
        """The value in the budget topic."""
        return orjson.dumps({"v": VERSION, **asdict(self)})

    @classmethod
    def from_record(cls, value: bytes) -> Claim:
        """The claim in a record. Raises `ConfigurationError` for a newer version."""
        data: dict[str, Any] = orjson.loads(value)
        if data.pop("v") > VERSION:
            raise ConfigurationError(
                "the budget was claimed by a newer Trunkline", hint="run that version", code="budget.version"
            )
        said, notice = data.pop("said"), data.pop("notice")
        limits, want = Limits(**data.pop("limits")), Want(**data.pop("want"))
        return cls(
            **data,
            limits=limits,
            want=want,
            said=Statement(**said) if said is not None else None,
            notice=Notice(**notice) if notice is not None else None,
        )
