"""The gates of a worker: what its pipelines share of each account they call."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from trunkline.bus.budget.budgets import Budgets
from trunkline.bus.budget.gate import BudgetGate
from trunkline.bus.delivery.breaker import Breaker
from trunkline.bus.delivery.gates import Gate, NamedWait
from trunkline.core.manifests import Project
from trunkline.core.manifests import Sink as SinkManifest
from trunkline.core.manifests import Source as SourceManifest
from trunkline.core.manifests.models import BreakerSpec, ConnectionSpec
from trunkline.core.metrics import end_series
from trunkline.core.quota import NO_QUOTA, Quota
from trunkline.core.secret import marks_of, watched_references


@dataclass(frozen=True, slots=True)
class AccountGates:
    """What the calls of one pipeline pass: the wait that the account named, its breaker, and its budget where it has one."""

    named: NamedWait
    breaker: Breaker
    budget: BudgetGate | None = None

    @property
    def all(self) -> Sequence[Gate]:
        """Every gate, in the order in which they are passed."""
        return (*self.but_breaker, self.breaker)

    @property
    def but_breaker(self) -> Sequence[Gate]:
        """Those that the engine asks where the sink asks the breaker itself."""
        return (self.named,) if self.budget is None else (self.named, self.budget)


class Gates:
    """Makes the gates of accounts, and gives the pipelines of one `Connection` the same ones.

    A worker has one for its life: an open breaker outlives the restart of a pipeline. A `Connection` that changed is another
    account, also where only its secrets hold other values: what was refused before need not be. `for_pipeline` is called by threads;
    the gates themselves belong to the event loop.
    """

    def __init__(self, budgets: Budgets | None = None) -> None:
        self._budgets = budgets
        self._lock = threading.Lock()
        self._made: dict[str, tuple[tuple[ConnectionSpec | None, Mapping[str, str]], AccountGates]] = {}
        """By account, with the `Connection` that it is and the marks of its secrets."""

    def for_pipeline(self, manifest: SinkManifest, project: Project) -> AccountGates:
        """The gates that the calls of a pipeline pass, those of its `Connection`, else its own."""
        return self._of(manifest, manifest.spec.connection, _own(manifest), project)

    def for_fallback(self, manifest: SinkManifest, project: Project) -> AccountGates:
        """The gates of the account that a pipeline's fallback uses."""
        assert manifest.spec.fallback is not None
        name = manifest.spec.fallback.connection
        return self._of(manifest, name, _own_fallback(manifest), project)

    def _of(self, manifest: SinkManifest, name: str | None, own: str, project: Project) -> AccountGates:
        connection = project.connections.get(name) if name is not None else None
        spec = connection.spec if connection is not None else None
        account = name if name is not None else own
        known_by = (spec, marks_of(watched_references(spec.config)) if spec is not None else {})
        with self._lock:
            found = self._made.get(account)
            if found is None or found[0] != known_by:
                found = self._made[account] = (known_by, _gates(account, spec))
        if self._budgets is None or name is None or spec is None:
            return found[1]
        budget = self._budgets.gate(name, spec, manifest.metadata.name, manifest.spec.delivery)
        return replace(found[1], budget=budget)

    def keep(self, project: Project) -> None:
        """Only the accounts that this project's sinks use are there from now on: what the others' metrics told ends. On the event loop."""
        used = {account for sink in project.sinks.values() for account in _accounts_of(sink)}
        with self._lock:
            gone = [account for account in self._made if account not in used]
            for account in gone:
                del self._made[account]
        for account in gone:
            end_series(connection=account)
        if self._budgets is not None:
            self._budgets.keep(
                used | {name for name in map(_connection_of, project.sources.values()) if name is not None}
            )

    def quota(self, connection: str | None) -> Quota:
        """What a plug-in may tell of the account of a `Connection`."""
        return NO_QUOTA if self._budgets is None or connection is None else self._budgets.quota(connection)


def _own(manifest: SinkManifest) -> str:
    """The account of a sink without a `Connection`."""
    return f"pipeline/{manifest.metadata.name}"


def _own_fallback(manifest: SinkManifest) -> str:
    return f"{_own(manifest)}/fallback"


def _accounts_of(manifest: SinkManifest) -> list[str]:
    """The accounts that a sink uses."""
    fallback = manifest.spec.fallback
    second = [] if fallback is None else [fallback.connection or _own_fallback(manifest)]
    return [manifest.spec.connection or _own(manifest), *second]


def _connection_of(manifest: SourceManifest) -> str | None:
    return manifest.spec.connection


def _gates(account: str, spec: ConnectionSpec | None) -> AccountGates:
    """The gates that the pipelines of an account share on a worker; its budget has one for each pipeline."""
    return AccountGates(NamedWait(account), Breaker(account, spec.breaker if spec is not None else BreakerSpec()))
