"""Applied manifests: records of the compacted topic `_trunkline.manifests`, which workers follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from trunkline.bus.commands import Latest, read_latest
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.core.jsontext import MAX_DEPTH, is_deeper
from trunkline.core.manifests import Project
from trunkline.core.manifests.data import manifest_data
from trunkline.core.manifests.documents import Document
from trunkline.core.manifests.findings import Findings
from trunkline.core.manifests.kinds import KINDS, PIPELINE_KINDS
from trunkline.core.manifests.load import gather
from trunkline.core.secret import without_secrets

VERSION = 1


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a plan. `fields` names what differs, with the old and the new value, without secrets."""

    action: Literal["create", "change", "delete"]
    kind: str
    name: str
    fields: tuple[tuple[str, Any, Any], ...] = ()

    @property
    def key(self) -> str:
        """What it changes, as `Kind/name`."""
        return f"{self.kind}/{self.name}"

    def as_dict(self) -> dict[str, Any]:
        """The change as data."""
        fields = [{"field": field, "old": old, "new": new} for field, old, new in self.fields]
        return {"action": self.action, "kind": self.kind, "name": self.name, "fields": fields}


def as_data(project: Project) -> dict[str, dict[str, Any]]:
    """The manifests by `Kind/name` as data that needs no files."""
    return {
        f"{kind}/{name}": manifest_data(project, manifest)
        for kind in KINDS
        for name, manifest in project.of_kind(kind).items()
    }


def read_applied(settings: KafkaSettings, names: Names) -> dict[str, dict[str, Any]]:
    """What is applied now, by `Kind/name`. Raises our error for Kafka's."""
    return Applied.of(read_latest(settings, names.manifests)).manifests


@dataclass(frozen=True, slots=True)
class Applied:
    """What is applied, by `Kind/name`, and the versions of it."""

    manifests: dict[str, dict[str, Any]]
    versions: dict[str, int]

    @classmethod
    def of(cls, latest: Latest) -> Applied:
        """What the manifests topic says. A record that can't be read, or is of a newer version, is a bad manifest of its name."""
        manifests, versions = {}, {}
        for key, found in latest.items():
            manifests[key], versions[key] = _manifest_in(key, found.value or b""), found.version
        return cls(manifests, versions)


def pipelines_of(applied: Iterable[str]) -> dict[str, str]:
    """Kinds by name of the pipelines among what is applied, which is named as `Kind/name`."""
    found = (key.partition("/") for key in applied)
    return {name: kind for kind, _, name in found if kind in PIPELINE_KINDS}


def reads(manifest: Mapping[str, Any]) -> list[str]:
    """The topics and families that an applied manifest reads; none where it is no pipeline, or can't be read."""
    found = _spec(manifest).get("from") if manifest.get("kind") in PIPELINE_KINDS else None
    return [one for one in found if isinstance(one, str)] if isinstance(found, list) else []


def writes(manifest: Mapping[str, Any]) -> list[str]:
    """The topics and families that an applied manifest writes; none where it is no pipeline, or can't be read."""
    found = _spec(manifest).get("to") if manifest.get("kind") in PIPELINE_KINDS else None
    return (
        [str(one["topic"]) for one in found if isinstance(one, dict) and "topic" in one]
        if isinstance(found, list)
        else []
    )


def connections(manifest: Mapping[str, Any]) -> set[str]:
    """The connections that an applied manifest uses."""
    spec = _spec(manifest)
    fallback = spec.get("fallback")
    used = [spec.get("connection"), fallback.get("connection") if isinstance(fallback, dict) else None]
    return {one for one in used if isinstance(one, str)}


def _spec(manifest: Mapping[str, Any]) -> Mapping[str, Any]:
    found = manifest.get("spec")
    return found if isinstance(found, dict) else {}


def _manifest_in(key: str, value: bytes) -> dict[str, Any]:
    try:
        data = orjson.loads(value)
        manifest, version = data["manifest"], data["v"]
        if isinstance(manifest, dict) and version <= VERSION and not is_deeper(manifest, MAX_DEPTH):
            return manifest
        written = f"written by a newer Trunkline (format {version})"
    except (ValueError, TypeError, KeyError):
        written = "a record that is no manifest"
    # Whoever reads on finds what is wrong with it where every other fault of a manifest is found.
    kind, _, name = key.partition("/")
    return {"apiVersion": written, "kind": kind, "metadata": {"name": name}}


def gather_applied(applied: Mapping[str, dict[str, Any]]) -> Findings:
    """What is applied, for `examine`: one that the models refuse is a problem of its own. What was applied first has its name."""
    return gather(Document(data, {}, f"applied:{key}") for key, data in applied.items())


def plan(
    before: Mapping[str, dict[str, Any]], after: Mapping[str, dict[str, Any]], *, prune: bool = False
) -> list[Change]:
    """What applying `after` changes. Manifests that are only in `before` stay, unless `prune` deletes them."""
    changes: list[Change] = []
    for key, data in after.items():
        kind, _, name = key.partition("/")
        if key not in before:
            changes.append(Change("create", kind, name))
        elif before[key] != data:
            changes.append(Change("change", kind, name, tuple(shown_differences(before[key], data))))
    if prune:
        for key in before:
            if key not in after:
                kind, _, name = key.partition("/")
                changes.append(Change("delete", kind, name))
    return changes


def shown_differences(before: Any, after: Any) -> list[tuple[str, Any, Any]]:
    """The fields in which two manifests differ, each with what it was and is, None where it is not there, without secrets."""
    found = []
    for field, old, new in _differences(before, after):
        name = field.rpartition(".")[2]
        was, now = without_secrets(old, name), without_secrets(new, name)
        found.append((field, was, f"{now} (another)" if was == now else now))
    return found


def _differences(before: Any, after: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for name in sorted({*before, *after}):
            found += _differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
        return found
    return [] if before == after else [(path, before, after)]
