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


@cache
def _own(kind: Kind) -> frozenset[str]:
    """Kept, because the name of a distribution is read from its files at each look."""
    points = _found(kind).items()
    return frozenset(name for name, point in points if point.dist is not None and point.dist.name == "trunkline")


def plugin_names(kind: Kind) -> list[str]:
    """The names of all installed plug-ins of a kind, sorted."""
    return sorted(_found(kind))


def comes_with_trunkline(kind: Kind, name: str) -> bool:
    """Whether the plug-in is part of Trunkline's own distribution; False also for one that is not installed."""
    return name in _own(kind)


@cache
def load_plugin(kind: Kind, name: str) -> type[Plugin]:
    """The plug-in class called `name`.

    Raises `ConfigurationError`: `plugin.unknown` with the nearest name, `plugin.missing_extra` when its client library is not
    installed (naming the extra), `plugin.broken` when its module can't be imported, `plugin.invalid` when what the entry point
    names is no plug-in of that kind.
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
            hint=f"install trunkline[{name}]" if comes_with_trunkline(kind, name) else f"install {error.name}",
            code="plugin.missing_extra",
        ) from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # also SystemExit: a module that is imported has nothing to end
        raise ConfigurationError(
            f"the {kind} {name!r} can't be imported from {point.value}: {type(error).__name__}: {error}",
            hint="mend or upgrade the package that brings it",
            code="plugin.broken",
        ) from error
    if not (isinstance(found, type) and issubclass(found, _CONTRACTS[kind])):
        raise ConfigurationError(
            f"the {kind} {name!r} is none: {point.value} does not derive from its contract",
            hint=f"derive it from `{kind.capitalize()}` in trunkline.core.contracts",
            code="plugin.invalid",
        )
    return found
