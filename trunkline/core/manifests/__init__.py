"""Manifests: the YAML in which engineers declare topics, connections and pipelines."""

from trunkline.core.manifests.load import load_files, load_text
from trunkline.core.manifests.models import Connection, Manifest, Pipeline, Sink, Source, Stream, Topic
from trunkline.core.manifests.problems import ManifestError, Problem
from trunkline.core.manifests.project import Project

__all__ = [
    "Connection",
    "Manifest",
    "ManifestError",
    "Pipeline",
    "Problem",
    "Project",
    "Sink",
    "Source",
    "Stream",
    "Topic",
    "load_files",
    "load_text",
]
