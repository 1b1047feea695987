"""Finding plug-ins by entry point. The engine knows groups, never names."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from trunkline.core.contracts import Plugin, PushSource, Sink, Source, Step
from trunkline.core.errors import ConfigurationError, did_you_mean

Kind = Literal["source", "step", "sink"]
GROUPS: dict[Kind, str] = {"source": "trunkline.sources", "step": "trunkline.steps", "sink": "trunkline.sinks"}
_CONTRACTS: dict[Kind, tuple[type[Any], ...]] = {"source": (Source, PushSource), "step": (Step,), "sink": (Sink,)}


@cache
def _found(kind: Kind) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=GROUPS[kind])}


def plugin_names(kind: Kind) -> list[str]:
    """The names of all installed plug-ins of a kind, sorted."""
    return sorted(_found(kind))


@cache
def load_plugin(kind: Kind, name: str) -> type[Plugin]:
    """The plug-in class called `name`.

    Raises `ConfigurationError`: `plugin.unknown` with the nearest name, `plugin.missing_extra` when its client library is not
    installed (naming the extra), `plugin.invalid` when what the entry point names is no plug-in of that kind.
    """
    point = _found(kind).get(name)
    if point is None:
        raise ConfigurationError(
            f"no {kind} plug-in is called {name!r}", hint=did_you_mean(name, _found(kind)), code="plugin.unknown"
        )
    try:
        found = point.load()
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the {kind} {name!r} needs the Python package {error.name!r}, which is not installed",
            hint=f"install trunkline[{name}]",
            code="plugin.missing_extra",
        ) from error
    if not (isinstance(found, type) and issubclass(found, _CONTRACTS[kind])):
        raise ConfigurationError(
            f"{point.value} is no {kind} plug-in", hint="it must derive from the contract", code="plugin.invalid"
        )
    return found
