"""What things are called on the cluster: topics, groups and transactional ids of one namespace.

An empty namespace gives bare names; a namespace `acme` puts `acme.` before all of them, so that two installs share a cluster.
Topics that manifests declare keep the names that the manifests give.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from trunkline.core.errors import ConfigurationError

_FORM = re.compile(r"^([a-z0-9][a-z0-9-]{0,30})?$")


@dataclass(frozen=True, slots=True)
class Names:
    """The names of one namespace."""

    namespace: str = ""

    def __post_init__(self) -> None:
        if not _FORM.fullmatch(self.namespace):
            raise ConfigurationError(
                f"the namespace {self.namespace!r} must be lower case letters, digits and hyphens, 31 at the most",
                where="TRUNKLINE_NAMESPACE",
                code="namespace.invalid",
            )

    @classmethod
    def from_environment(cls) -> Names:
        """The namespace of `TRUNKLINE_NAMESPACE`, empty where it is not set."""
        return cls(os.environ.get("TRUNKLINE_NAMESPACE", ""))

    def _named(self, name: str) -> str:
        return f"{self.namespace}.{name}" if self.namespace else name

    @property
    def manifests(self) -> str:
        """Applied manifests, compacted by kind and name."""
        return self._named("_trunkline.manifests")

    @property
    def control(self) -> str:
        """What people want of pipelines: running, paused, stopped; compacted by pipeline."""
        return self._named("_trunkline.control")

    @property
    def status(self) -> str:
        """What workers say of pipelines, and the second copy of offsets and counters; compacted."""
        return self._named("_trunkline.status")

    @property
    def positions(self) -> str:
        """Where source splits stand, compacted by pipeline and split."""
        return self._named("_trunkline.positions")

    @property
    def leases(self) -> str:
        """A topic without records whose partitions stand for source splits."""
        return self._named("_trunkline.leases")

    @property
    def deliveries(self) -> str:
        """Keys of webhook deliveries that were accepted, for as long as their windows last; compacted."""
        return self._named("_trunkline.deliveries")

    @property
    def trace(self) -> str:
        """What happened to every record, one columnar record a transaction."""
        return self._named("_trunkline.trace")

    @property
    def redriven(self) -> str:
        """Which dead letters were sent again; compacted by pipeline and place."""
        return self._named("_trunkline.redriven")

    @property
    def audit(self) -> str:
        """Who decided what, append-only."""
        return self._named("_trunkline.audit")

    @property
    def decisions(self) -> str:
        """What people decided about parked records and nobody has carried out yet; compacted by pipeline and decision."""
        return self._named("_trunkline.decisions")

    @property
    def jobs(self) -> str:
        """Jobs, what people want of them and how far they are; compacted. Also the group of the workers that run them."""
        return self._named("_trunkline.jobs")

    @property
    def budgets(self) -> str:
        """What workers claim of the accounts' budgets; compacted by account and worker."""
        return self._named("_trunkline.budgets")

    @property
    def principals(self) -> str:
        """Who may sign in and do what, and the workers whose tokens are believed; compacted by principal."""
        return self._named("_trunkline.principals")

    @property
    def schemas(self) -> str:
        """The registry's own topic, in the Confluent format."""
        return self._named("_schemas")

    def group(self, pipeline: str) -> str:
        """The consumer group of a pipeline."""
        return self._named(pipeline)

    def dead_letters(self, pipeline: str) -> str:
        """The dead-letter topic of a pipeline; of a source its quarantine."""
        return self._named(f"{pipeline}.dlq")

    def retry(self, pipeline: str) -> str:
        """The topic through which dead letters come back to this pipeline and no other."""
        return self._named(f"{pipeline}.retry")

    def parked(self, pipeline: str) -> str:
        """The records of keys that are held back until their failed record is settled; compacted."""
        return self._named(f"{pipeline}.parked")

    def transactional_id(self, pipeline: str, *parts: str) -> str:
        """A transactional id of this pipeline's own."""
        return self._named(".".join((pipeline, *parts)))

    def event_source(self, pipeline: str) -> str:
        """The default `ce_source` of the events that a source pipeline publishes."""
        return f"/{self.namespace or 'trunkline'}/{pipeline}"
