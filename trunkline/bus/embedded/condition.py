"""How the embedded broker of a home folder is, as the process that keeps it says: for other processes, also while the disk is full.

The file is as large as it will ever be from the start, and is written in place: that needs no room.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from trunkline.core.errors import UnavailableError
from trunkline.core.metrics import gauge

FILE = "broker.state"
_SIZE = 4096
_LONGEST = 600
FRESH_SECONDS = 30.0
"""A keeper says how the broker is each few seconds; one that has said nothing for so long is held up itself."""

State = Literal["starting", "running", "silent", "down"]


@dataclass(frozen=True, slots=True)
class BrokerCondition:
    """How a broker is. `since` and `at` are seconds since 1970: when it became so, and when that was said last.

    `code`, `message`, `where` and `hint` are those of the error that keeps it down, or of what will if nobody does anything.
    """

    keeper: int
    bootstrap: str
    state: State
    since: float
    at: float
    free: int | None = None
    code: str | None = None
    message: str | None = None
    where: str | None = None
    hint: str | None = None

    @property
    def trouble(self) -> UnavailableError | None:
        """What clients of the broker are told instead of "nobody answers"; None while it runs."""
        if self.state == "running":
            return None
        begun = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.since))
        if self.state == "starting":
            return UnavailableError(
                f"the embedded broker is starting, since {begun}",
                where=self.where,
                hint="ask again in some seconds",
                code="embedded.starting",
            )
        late = f"; process {self.keeper}, which keeps it, has said nothing since" if self.is_late else ""
        return UnavailableError(
            f"the embedded broker is down since {begun}: {self.message}{late}",
            where=self.where,
            hint=self.hint,
            code=self.code or "embedded.start",
        )

    @property
    def is_late(self) -> bool:
        """Whether its keeper is held up."""
        return time.time() - self.at > FRESH_SECONDS


def write_condition(home: Path, condition: BrokerCondition) -> None:
    """Says how the broker is. Raises OSError."""
    told = asdict(condition)
    for name in ("message", "hint", "where"):
        text = told[name]
        if text is not None and len(text) > _LONGEST:
            told[name] = text[: _LONGEST - 1] + "…"
    data = json.dumps(told).encode()[:_SIZE].ljust(_SIZE)
    handle = os.open(home / FILE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(handle, data, 0)
    finally:
        os.close(handle)


def read_condition(home: Path) -> BrokerCondition | None:
    """How the broker is; None where nobody keeps one here."""
    try:
        found = BrokerCondition(**json.loads((home / FILE).read_bytes()))
        os.kill(found.keeper, 0)
    except PermissionError:
        return None
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    return found


def broker_trouble(home: Path) -> UnavailableError | None:
    """What keeps the broker of a folder from answering, as its keeper says; None where it runs, and where nobody keeps one."""
    found = read_condition(home)
    return found.trouble if found is not None else None


def trouble_of(home: Path, bootstrap: str) -> UnavailableError | None:
    """As `broker_trouble`, for who uses the broker at an address: nothing where that is not the embedded one of this folder."""
    found = read_condition(home)
    return found.trouble if found is not None and found.bootstrap == bootstrap else None


def measure(home: Path, bootstrap: str) -> None:
    """Sets the metrics of the embedded broker that a worker uses; nothing where it uses another one."""
    found = read_condition(home)
    if found is None or found.bootstrap != bootstrap:
        return
    gauge("trunkline_embedded_broker_up").set(found.state == "running")
    fault = gauge("trunkline_embedded_broker_fault")
    fault.clear()
    if found.code is not None:
        fault.labels(found.code).set(1)
    if found.free is not None:
        gauge("trunkline_embedded_disk_free_bytes").set(found.free)


def remove_condition(home: Path) -> None:
    """The broker was ended in order: nobody keeps it any more."""
    (home / FILE).unlink(missing_ok=True)
