"""A new plug-in's folder: files that pass the type checker, the linter and their conformance suite before anything is changed."""

from __future__ import annotations

import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Literal

from trunkline.core.errors import ConfigurationError
from trunkline.core.plugins import GROUPS

PluginKind = Literal["source", "sink", "step"]

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_FILES: dict[str, str] = {
    "settings.py.txt": "settings.py",
    "conformance.py.txt": "conformance.py",
    "README.md.txt": "README.md",
    "test.py.txt": "test_@name@.py",
}
_SUFFIX = {"source": "Source", "sink": "Sink", "step": "Step"}


def scaffold_plugin(kind: PluginKind, name: str, folder: Path) -> list[Path]:
    """Writes the plug-in `name` into `folder / name`, and returns the files.

    Raises `ConfigurationError`: `scaffold.name` for a name that is not snake_case or that Python's own modules have,
    `scaffold.exists` where there is something at that place.
    """
    _check_name(name)
    target = folder / name
    if target.exists():
        raise ConfigurationError(
            f"{target} is there already", hint="choose another name or another folder", code="scaffold.exists"
        )
    package = package_of(target)
    contents = {"__init__.py": ""}
    for template, written in (*_FILES.items(), (f"{kind}.py.txt", f"{kind}.py")):
        text = files(__name__).joinpath("templates", kind, template).read_text(encoding="utf-8")
        contents[_filled(written, name, package)] = _filled(text, name, package)
    target.mkdir(parents=True)
    for file, text in contents.items():
        (target / file).write_text(text, encoding="utf-8")
    return [target / file for file in contents]


def pyproject_lines(kind: PluginKind, name: str, folder: Path) -> tuple[str, str]:
    """The two lines of `pyproject.toml`: one under `[project.optional-dependencies]`, one under the entry points of its kind.

    The extra is empty until the plug-in needs a client library.
    """
    package = package_of(folder / name)
    return (f"{name} = []", f'{name} = "{package}.{kind}:{_class_name(name)}{_SUFFIX[kind]}"')


def entry_point_table(kind: PluginKind) -> str:
    """The table of `pyproject.toml` that the second line belongs to."""
    return f'[project.entry-points."{GROUPS[kind]}"]'


def package_of(folder: Path) -> str:
    """The import path of a plug-in's folder: as many parents as are packages stand before its name."""
    parts = [folder.name]
    parent = folder.absolute().parent
    while (parent / "__init__.py").is_file():
        parts.insert(0, parent.name)
        parent = parent.parent
    return ".".join(parts)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} can't be a plug-in's name",
            hint="write it in snake_case: lower-case letters, digits and _",
            code="scaffold.name",
        )
    if name in sys.stdlib_module_names:
        raise ConfigurationError(
            f"{name!r} is a module of Python's own", hint="choose another name", code="scaffold.name"
        )


def _filled(text: str, name: str, package: str) -> str:
    values = {
        "name": name,
        "NAME": name.upper(),
        "Class": _class_name(name),
        "Title": name.replace("_", " ").title(),
        "dashed": name.replace("_", "-"),
        "package": package,
    }
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return text


def _class_name(name: str) -> str:
    return "".join(part.title() for part in name.split("_"))
