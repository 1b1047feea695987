"""A manifest as data that needs no files: what is applied goes to workers, which have none of those beside the manifest."""

from __future__ import annotations

import json
from typing import Any

from trunkline.core.contracts import Step
from trunkline.core.errors import TrunklineError
from trunkline.core.manifests import models
from trunkline.core.manifests.models import Manifest
from trunkline.core.manifests.project import Project
from trunkline.core.plugins import load_plugin


def manifest_data(project: Project, manifest: Manifest) -> dict[str, Any]:
    """The manifest as JSON-able data; schemas that it names by their files are put in place of the names.

    The project must have been examined. Raises `ConfigurationError` for a file that can't be read.
    """
    data: dict[str, Any] = json.loads(
        manifest.model_dump_json(by_alias=True, exclude_none=True, exclude_defaults=False)
    )
    if isinstance(manifest, models.Topic):
        schema = project.schemas.get(manifest.metadata.name)
        if schema is not None and manifest.spec.value_schema is not None:
            data["spec"]["schema"] = schema
    elif isinstance(manifest, models.Stream):
        folder = project.origin(manifest).folder
        for spec, step in zip(manifest.spec.steps, data["spec"]["steps"], strict=True):
            try:
                plugin = load_plugin("step", spec.plugin)
            except TrunklineError:
                continue  # it is not installed here, and refused or run elsewhere
            assert issubclass(plugin, Step)
            step[spec.plugin] = plugin.without_files(step[spec.plugin], folder)
    return data
