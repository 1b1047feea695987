"""Applied manifests: records of the compacted topic `_trunkline.manifests`, which workers follow."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

import orjson
from confluent_kafka import KafkaException

from trunkline.bus.kafka import KafkaSettings, read_all, translate
from trunkline.bus.names import Names
from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests import Project
from trunkline.core.manifests.kinds import KINDS
from trunkline.core.manifests.load import load_documents
from trunkline.core.manifests.yaml import Document

VERSION = 1


@dataclass(frozen=True, slots=True)
class Change:
    """One line of a plan. `fields` names what differs, with the old and the new value."""

    action: Literal["create", "change", "delete"]
    kind: str
    name: str
    fields: tuple[tuple[str, Any, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The change as data."""
        fields = [{"field": field, "old": old, "new": new} for field, old, new in self.fields]
        return {"action": self.action, "kind": self.kind, "name": self.name, "fields": fields}


def as_data(project: Project) -> dict[str, dict[str, Any]]:
    """The manifests by `Kind/name` as JSON-able data; a topic's schema file is put in its place."""
    found = {}
    for kind in KINDS:
        for name, manifest in project.of_kind(kind).items():
            data = json.loads(manifest.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=False))
            if kind == "Topic" and project.schemas.get(name) is not None and manifest.spec.value_schema is not None:
                data["spec"]["schema"] = project.schemas[name]
            found[f"{kind}/{name}"] = data
    return found


def read_applied(settings: KafkaSettings, names: Names) -> dict[str, dict[str, Any]]:
    """What is applied now, by `Kind/name`. Raises `ConfigurationError` for records of a newer version."""
    found: dict[str, dict[str, Any]] = {}
    for message in read_all(settings, names.manifests):
        key, value = (message.key() or b"").decode(), message.value()
        if value is None:
            found.pop(key, None)
            continue
        data = orjson.loads(value)
        if data["v"] > VERSION:
            raise ConfigurationError(
                f"{key} was applied by a newer Trunkline", hint="run that version", code="manifest.version"
            )
        found[key] = data["manifest"]
    return found


def project_of(applied: dict[str, dict[str, Any]]) -> Project:
    """The project that applied manifests make. Raises `ManifestError`."""
    return load_documents([Document(data, {}, f"applied:{key}") for key, data in sorted(applied.items())])


def plan(before: dict[str, dict[str, Any]], after: dict[str, dict[str, Any]], *, prune: bool = False) -> list[Change]:
    """What applying `after` changes. Manifests that are only in `before` stay, unless `prune` deletes them."""
    changes: list[Change] = []
    for key, data in after.items():
        kind, _, name = key.partition("/")
        if key not in before:
            changes.append(Change("create", kind, name))
        elif before[key] != data:
            changes.append(Change("change", kind, name, tuple(_differences(before[key], data))))
    if prune:
        for key in before:
            if key not in after:
                kind, _, name = key.partition("/")
                changes.append(Change("delete", kind, name))
    return changes


def write_changes(
    settings: KafkaSettings, names: Names, changes: list[Change], after: dict[str, dict[str, Any]], by: str
) -> None:
    """Writes the changed manifests in one transaction: all of them are applied, or none."""
    producer = settings.producer(transactional_id=names.transactional_id("_trunkline", "apply"))
    try:
        producer.init_transactions(30)
        producer.begin_transaction()
        for change in changes:
            key = f"{change.kind}/{change.name}"
            value = None
            if change.action != "delete":
                value = orjson.dumps({"v": VERSION, "by": by, "manifest": after[key]})
            producer.produce(names.manifests, value, key.encode())
        producer.commit_transaction(30)
    except KafkaException as error:
        raise translate(error, "the manifests can't be applied") from error


def _differences(before: Any, after: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(after, dict):
        found = []
        for name in sorted({*before, *after}):
            found += _differences(before.get(name), after.get(name), f"{path}.{name}" if path else name)
        return found
    return [] if before == after else [(path, before, after)]
