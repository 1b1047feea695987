"""The table of kinds: what a manifest may declare, and what the engine has to know of each kind."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.core.manifests.models import Connection, Manifest, Sink, Source, Stream, Topic


@dataclass(frozen=True, slots=True)
class ManifestKind:
    """One kind: its model, the attribute of `Project` that holds its manifests, and whether they are pipelines.

    Names are unique within a kind, and among all pipelines.
    """

    model: type[Manifest]
    attribute: str
    pipeline: bool = False


KINDS: dict[str, ManifestKind] = {
    "Topic": ManifestKind(Topic, "topics"),
    "Connection": ManifestKind(Connection, "connections"),
    "Source": ManifestKind(Source, "sources", pipeline=True),
    "Stream": ManifestKind(Stream, "streams", pipeline=True),
    "Sink": ManifestKind(Sink, "sinks", pipeline=True),
}
"""By the name that stands as `kind` in a manifest, in the order in which the kinds build upon each other."""

PIPELINE_KINDS = tuple(name for name, kind in KINDS.items() if kind.pipeline)
