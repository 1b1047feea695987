"""What a worker has: its plug-ins, with the packages that they lack, and the Python modules that it can import.

Workers write it to `_trunkline.status` when they start, so that whoever applies manifests can see what no worker could build.
"""

from __future__ import annotations

import pkgutil
import re
import sys
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, distribution, requires
from typing import Any

import orjson

from trunkline.core.plugins import GROUPS, Kind, comes_with_trunkline, plugin_names

VERSION = 1
_OF_EXTRA = re.compile(r"""(?P<package>[\w.-]+).*;.*\bextra == ["'](?P<extra>[\w.-]+)["']""")
"""A requirement of an extra, as the metadata of a distribution has it (PEP 508)."""
KEY = "@inventory."
"""What the keys of these records begin with; the worker's id follows."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """What one worker has. `plugins` has the packages that each plug-in lacks, by kind and name; none where it is complete."""

    worker: str
    plugins: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    modules: frozenset[str] = frozenset()
    """The top-level modules that it can import, those of Python itself aside."""
    roots: tuple[str, ...] = ()
    """The folders that it imports from."""

    def lacks(self, kind: Kind, name: str) -> str | None:
        """Why it can't make a plug-in, in words; None where it can."""
        missing = self.plugins.get(kind, {}).get(name)
        if missing is None:
            return f"no {kind} plug-in is called {name!r} there"
        return f"the {kind} {name!r} needs {', '.join(missing)} there" if missing else None

    def to_record(self) -> bytes:
        """The record of the status topic."""
        return orjson.dumps(
            {
                "v": VERSION,
                "worker": self.worker,
                "plugins": self.plugins,
                "modules": sorted(self.modules),
                "roots": self.roots,
            }
        )

    @classmethod
    def parse(cls, value: bytes) -> Inventory:
        """The inventory in such a record."""
        data: dict[str, Any] = orjson.loads(value)
        return cls(data["worker"], data["plugins"], frozenset(data["modules"]), tuple(data["roots"]))


def take_inventory(worker: str) -> Inventory:
    """What this process has. Imports no plug-in: their packages are looked for by name. Takes some milliseconds of a disk."""
    plugins = {str(kind): {name: _missing(kind, name) for name in plugin_names(kind)} for kind in GROUPS}
    modules = {found.name for found in pkgutil.iter_modules() if found.name not in sys.stdlib_module_names}
    return Inventory(worker, plugins, frozenset(modules), tuple(one for one in sys.path if one))


def _missing(kind: Kind, name: str) -> list[str]:
    """The packages of a plug-in's extra that are not installed. What a package of its own needs, its installer saw to."""
    if not comes_with_trunkline(kind, name):
        return []
    found = (_OF_EXTRA.match(text) for text in requires("trunkline") or ())
    return sorted({one["package"] for one in found if one and one["extra"] == name and not _installed(one["package"])})


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True
