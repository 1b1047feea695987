"""The manifests that are applied: which there are, who applied each and when, and what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trunkline.bus.commands import read_latest
from trunkline.bus.worker.applied import Applied
from trunkline.control.cluster import Cluster
from trunkline.control.timestamps import utc
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.secret import without_secrets


@dataclass(frozen=True, slots=True)
class AppliedManifest:
    """One applied manifest, without secrets. `version` is what a change is compared with; `at` is when it was applied, RFC 3339."""

    kind: str
    name: str
    owner: str | None
    version: int
    by: str
    at: str
    manifest: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The line of a list as data: all but the manifest itself."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "manifest"}


def manifests(cluster: Cluster, kind: str | None = None) -> list[AppliedManifest]:
    """What is applied, by kind and name; of one kind where that is named.

    Raises `ConfigurationError` for a kind of which none is applied.
    """
    latest = read_latest(cluster.kafka, cluster.names.manifests)
    applied = Applied.of(latest)
    found = []
    for key, current in latest.items():
        own, _, name = key.partition("/")
        manifest = applied.manifests[key]
        metadata = manifest.get("metadata")
        owner = metadata.get("owner") if isinstance(metadata, dict) else None
        shown = without_secrets(manifest, "")
        found.append(AppliedManifest(own, name, owner, current.version, current.by, utc(int(current.at * 1000)), shown))
    kinds = {one.kind for one in found}
    if kind is not None and kind not in kinds and kinds:
        matching = [one for one in kinds if one.lower() == kind.lower()]
        if not matching:
            raise ConfigurationError(
                f"no {kind} is applied", where="--kind", hint=did_you_mean(kind, kinds), code="manifest.unknown"
            )
        kind = matching[0]
    return sorted((one for one in found if kind in {None, one.kind}), key=lambda one: (one.kind, one.name))


def manifest(cluster: Cluster, named: str) -> AppliedManifest:
    """One applied manifest, by `Kind/name` or by its name alone.

    Raises `ConfigurationError` where there is none, or several of that name.
    """
    every = {f"{one.kind}/{one.name}": one for one in manifests(cluster)}
    if named in every:
        return every[named]
    of_name = [key for key, one in every.items() if one.name == named]
    if len(of_name) == 1:
        return every[of_name[0]]
    if of_name:
        raise ConfigurationError(
            f"several manifests are called {named!r}",
            hint=f"name one of {', '.join(of_name)}",
            code="manifest.ambiguous",
        )
    known = every if "/" in named else {one.name for one in every.values()}
    raise ConfigurationError(
        f"no manifest is applied that is called {named!r}", hint=did_you_mean(named, known), code="manifest.unknown"
    )
