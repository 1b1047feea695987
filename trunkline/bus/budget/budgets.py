"""The budgets of a worker: an account for each `Connection`, and the link to Kafka once one of them is limited."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Collection, Sequence

from trunkline.bus.budget.account import TICK, Account, Identity
from trunkline.bus.budget.claim import Claim, Limits
from trunkline.bus.budget.forecast import BudgetMetrics
from trunkline.bus.budget.gate import AccountQuota, BudgetGate
from trunkline.bus.budget.link import Heard, Link
from trunkline.bus.budget.sharing import WEIGHTS
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.core.manifests.models import ConnectionSpec, DeliverySpec


class Budgets:
    """Made once a worker. `gate` and `quota` are called by threads, everything else on the event loop."""

    def __init__(self, settings: KafkaSettings, names: Names, worker: str) -> None:
        self._settings = settings
        self._names = names
        self._who = Identity(worker, uuid.uuid4().hex[:8])
        self._accounts: dict[str, Account] = {}
        self._used: set[str] = set()
        """Those that pipelines of this worker use."""
        self._metrics = BudgetMetrics()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._link: Link | None = None
        self._synced = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        """The worker runs: from now on budgets may be limited."""
        self._loop = asyncio.get_running_loop()
        self._look()

    async def close(self) -> None:
        """Gives everything back."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for account in self._accounts.values():
            account.release()
        if self._link is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._link.stop)

    def gate(self, connection: str, spec: ConnectionSpec, pipeline: str, delivery: DeliverySpec) -> BudgetGate:
        """The gate of a pipeline that uses a `Connection`."""
        account = self._account(connection)
        with self._lock:
            self._used.add(connection)
            account.limits = Limits(**spec.limits.model_dump()) if spec.limits is not None else Limits()
            account.timeout = max(account.timeout, delivery.timeout)
            gate = BudgetGate(account, account.turns.of(pipeline, WEIGHTS[delivery.priority]))
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._look)
        return gate

    def quota(self, connection: str) -> AccountQuota:
        """What the plug-ins of a `Connection` may tell of its account."""
        account = self._account(connection)
        with self._lock:
            self._used.add(connection)
        return AccountQuota(account)

    def keep(self, names: Collection[str]) -> None:
        """Only these accounts are used here from now on: what the others' metrics told ends.

        What the log says of the others is known on: one that comes back finds its limits as all workers left them.
        """
        with self._lock:
            gone, self._used = self._used - set(names), set(names)
        for account in gone:
            self._metrics.forget(account)

    def noticed(self, key: str) -> None:
        """Somebody else wrote a claim: it is our concern where we use that account."""
        if key.rpartition("/")[0] in self._accounts:
            self._begin()

    def _account(self, name: str) -> Account:
        with self._lock:
            account = self._accounts.get(name)
            if account is None:
                account = self._accounts[name] = Account(name, self._who, self._write, engage=self._wanted)
                if self._synced and self._loop is not None:
                    # The link has read everything, and there was no word on this account.
                    self._loop.call_soon_threadsafe(account.begin_at, time.monotonic())
            return account

    # --- the event loop ---

    def _wanted(self) -> None:
        """An account has something to say, or came to be limited."""
        self._begin()
        self._look()

    def _look(self) -> None:
        """Ticks the accounts that are in use, as long as there are any."""
        if self._closed or self._loop is None:
            return
        accounts = list(self._accounts.values())
        if any(account.limits for account in accounts):
            self._begin()
        busy = [account for account in accounts if account.busy]
        for account in busy:
            account.tick()
        self._metrics.update([account for account in accounts if account.name in self._used])
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(TICK, self._look) if busy else None

    def _begin(self) -> None:
        if self._link is None and self._loop is not None and not self._closed:
            self._link = Link(self._settings, self._names.budgets, self._loop, self._heard, self._read)
            self._link.start()

    def _write(self, claim: Claim) -> None:
        if self._link is not None:
            self._link.write(claim)

    def _heard(self, claims: Sequence[Heard]) -> None:
        for claim, at, received in claims:
            self._account(claim.account).heard(claim, at, received)

    def _read(self, received: float) -> None:
        self._synced = True
        for account in list(self._accounts.values()):
            account.begin_at(received)
        self._look()
