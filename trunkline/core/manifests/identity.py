"""What a pipeline's behaviour follows from, as one short text: a pipeline is restarted when it differs, and only then."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from trunkline.core.manifests.models import Pipeline
from trunkline.core.manifests.project import Project
from trunkline.core.secret import watched_references


def pipeline_identity(project: Project, manifest: Pipeline) -> str:
    """A digest of the pipeline's spec, of the connections that it uses, and of what its topics say of their values.

    Owner, labels and descriptions are not in it, neither the pipeline's own nor those of connections and topics: a change of those
    restarts nothing. Costs the same however large the project is.
    """
    spec: Any = manifest.spec
    topics = dict.fromkeys([*getattr(spec, "from_", ()), *(target.topic for target in getattr(spec, "to", ()))])
    parts = {
        "kind": manifest.kind,
        "name": manifest.metadata.name,
        "spec": _data(spec),
        "connections": _connections(project, manifest),
        "topics": {name: _values_of(project, name) for name in topics},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def pipeline_secrets(project: Project, manifest: Pipeline) -> frozenset[str]:
    """The references in the pipeline's spec and in its connections whose values may change while it runs."""
    return watched_references([_data(manifest.spec), _connections(project, manifest)])


def _connections(project: Project, manifest: Pipeline) -> dict[str, Any]:
    """The specs of the connections that a pipeline uses, None for one that there is not."""
    spec: Any = manifest.spec
    used = [getattr(spec, "connection", None), getattr(getattr(spec, "fallback", None), "connection", None)]
    connections = {name: project.connections.get(name) for name in used if name is not None}
    return {name: found and _data(found.spec) for name, found in connections.items()}


def _values_of(project: Project, topic: str) -> list[Any]:
    """What decides how values of a topic are read and written."""
    declared = project.topic_of(topic)
    trust = declared.spec.trust if declared is not None else None
    return [project.schema_of(topic), trust, *project.subjects_of(topic).patterns]


def _data(spec: Any) -> Any:
    return spec.model_dump(mode="json", by_alias=True)
