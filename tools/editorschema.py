"""The JSON Schema of manifests, for editors: one document for all kinds, with the settings of every installed plug-in.

What stands in `config` depends on `connector`, which is said with `if` and `then` (JSON Schema 2020-12, section 10.2.2.1).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from trunkline.core.contracts import Step
from trunkline.core.manifests.kinds import KINDS
from trunkline.core.plugins import Kind, load_plugin, plugin_names

_PREFIX = "#/$defs/"


def manifest_schema() -> dict[str, Any]:
    """The schema of one manifest of any kind."""
    _, found = models_json_schema(
        [(kind.model, "validation") for kind in KINDS.values()], ref_template=_PREFIX + "{model}"
    )
    defs: dict[str, Any] = found["$defs"]
    for name, kind in (("Source", "source"), ("Sink", "sink")):
        defs[name]["allOf"] = [_config_for(defs, kind, plugin) for plugin in plugin_names(kind)]  # type: ignore[arg-type]
        defs[f"{name}Spec"]["properties"]["connector"]["enum"] = plugin_names(kind)  # type: ignore[arg-type]
    _connections(defs)
    _steps(defs)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A Trunkline manifest",
        "type": "object",
        "required": ["apiVersion", "kind"],
        "properties": {"kind": {"enum": list(KINDS)}},
        "allOf": [
            {"if": {"properties": {"kind": {"const": kind}}}, "then": {"$ref": _PREFIX + kind}} for kind in KINDS
        ],
        "$defs": dict(sorted(defs.items())),
    }


def _config_for(defs: dict[str, Any], kind: Kind, name: str) -> dict[str, Any]:
    reference = _added(defs, f"{kind}.{name}", load_plugin(kind, name).settings_type)
    return _when(name, reference)


def _when(connector: str, reference: Mapping[str, Any]) -> dict[str, Any]:
    """If the spec names that connector, its `config` is as `reference` says."""
    return {
        "if": {"properties": {"spec": {"properties": {"connector": {"const": connector}}, "required": ["connector"]}}},
        "then": {"properties": {"spec": {"properties": {"config": reference}}}},
    }


def _connections(defs: dict[str, Any]) -> None:
    """Connections by the plug-in that they name; of a name used twice the sink's counts, as in validation."""
    conditions: dict[str, Any] = {}
    kinds: tuple[Kind, ...] = ("source", "sink")
    for kind in kinds:
        for name in plugin_names(kind):
            connection = load_plugin(kind, name).connection_type
            if connection is not None:
                conditions[name] = _when(name, _added(defs, f"connection.{name}", connection))
    defs["Connection"]["allOf"] = [conditions[name] for name in sorted(conditions)]
    defs["ConnectionSpec"]["properties"]["connector"]["enum"] = sorted(conditions)


def _steps(defs: dict[str, Any]) -> None:
    step = defs["StepSpec"]
    for name in plugin_names("step"):
        plugin = load_plugin("step", name)
        assert issubclass(plugin, Step)
        reference = _added(defs, f"step.{name}", plugin.settings_type)
        # A shorthand stands for one field, or for nothing at all; what it may be is checked by `validate`.
        step["properties"][name] = (
            {"description": plugin.summary, "anyOf": [reference, {}]} if plugin.shorthand else reference
        )
    step["additionalProperties"] = False


def _added(defs: dict[str, Any], name: str, model: type[BaseModel]) -> dict[str, str]:
    """The schema of a settings class among `defs`, its nested ones under names of its own."""
    schema = model.model_json_schema(ref_template=f"{_PREFIX}{name}.{{model}}")
    for nested, content in schema.pop("$defs", {}).items():
        defs[f"{name}.{nested}"] = content
    defs[name] = schema
    return {"$ref": _PREFIX + name}
