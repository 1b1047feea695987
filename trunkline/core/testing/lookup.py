"""Finding the suite of an installed plug-in: the module `conformance` beside the module of its class."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from trunkline.core.contracts import Plugin
from trunkline.core.errors import CheckFailedError
from trunkline.core.plugins import Kind, load_plugin
from trunkline.core.testing.plugin_suite import PluginSuite


def suites_of(kind: Kind, name: str) -> Mapping[str, type[PluginSuite[Any]]]:
    """The test classes of a plug-in by name: one for each way of working that its settings choose between.

    Raises `CheckFailedError` (`plugin.no_conformance`) where there is none, and what `load_plugin` raises.
    """
    plugin = load_plugin(kind, name)
    place = f"{plugin.__module__.rpartition('.')[0]}.conformance"
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name != place:
            raise
        raise _missing(kind, name, plugin, f"there is no module {place}") from error
    suites = {
        title: found
        for title, found in vars(module).items()
        if isinstance(found, type) and issubclass(found, PluginSuite) and getattr(found, "plugin", None) is plugin
    }
    if not suites:
        raise _missing(kind, name, plugin, f"{place} has no suite for it")
    return suites


def _missing(kind: Kind, name: str, plugin: type[Plugin], what: str) -> CheckFailedError:
    return CheckFailedError(
        f"the {kind} {name!r} has no conformance suite: {what}",
        hint=f"write `Test{plugin.__name__} = {kind}_suite({plugin.__name__}, factory=…)` there",
        code="plugin.no_conformance",
    )
