"""What a pipeline's behaviour follows from, as one short text: a pipeline is restarted when it differs, and only then."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from trunkline.core.manifests.models import Pipeline
from trunkline.core.manifests.project import Project


def pipeline_identity(project: Project, manifest: Pipeline) -> str:
    """A digest of the pipeline's spec, of the connections that it uses, and of what its topics say of their values.

    Owner, labels and descriptions are not in it, neither the pipeline's own nor those of connections and topics: a change of those
    restarts nothing. Costs the same however large the project is.
    """
    spec: Any = manifest.spec
    used = [getattr(spec, "connection", None), getattr(getattr(spec, "fallback", None), "connection", None)]
    connections = {name: project.connections.get(name) for name in used if name is not None}
    topics = dict.fromkeys([*getattr(spec, "from_", ()), *(target.topic for target in getattr(spec, "to", ()))])
    parts = {
        "kind": manifest.kind,
        "name": manifest.metadata.name,
        "spec": _data(spec),
        "connections": {name: found and _data(found.spec) for name, found in connections.items()},
        "topics": {name: _values_of(project, name) for name in topics},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _values_of(project: Project, topic: str) -> list[Any]:
    """What decides how values of a topic are read and written."""
    declared = project.topic_of(topic)
    trust = declared.spec.trust if declared is not None else None
    return [project.schema_of(topic), trust, *project.subjects_of(topic).patterns]


def _data(spec: Any) -> Any:
    return spec.model_dump(mode="json", by_alias=True)
