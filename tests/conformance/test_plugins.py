"""Every installed plug-in keeps its contract. One without a suite fails here."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.core.plugins import Kind, load_plugin, plugin_names
from trunkline.core.testing.lookup import suites_of

KINDS: tuple[Kind, ...] = ("source", "step", "sink")
PLUGINS = [(kind, name) for kind in KINDS for name in plugin_names(kind)]


def _suites() -> dict[str, Any]:
    """The test classes of each plug-in that has some; why another has none is the matter of the test below."""
    found: dict[str, Any] = {}
    for kind, name in PLUGINS:
        try:
            suites = suites_of(kind, name)
        except Exception:  # noqa: BLE001
            continue
        for own, suite in suites.items():
            title = f"Test{kind.title()}{name.title().replace('_', '')}"
            if len(suites) > 1:
                title = f"Test{kind.title()}{own.removeprefix('Test')}"
            found[title] = type(title, (suite,), {"__doc__": f"The {kind} {name}."})
    return found


globals().update(_suites())


@pytest.mark.parametrize(("kind", "name"), PLUGINS, ids=[f"{kind}-{name}" for kind, name in PLUGINS])
def test_every_plugin_has_a_conformance_suite(kind: Kind, name: str) -> None:
    assert all(suite.plugin is load_plugin(kind, name) for suite in suites_of(kind, name).values())


def test_the_shipped_kinds_are_all_found() -> None:
    assert {kind for kind, _ in PLUGINS} == set(KINDS)
