"""What is wrong with manifests, said with file, line and field: for people who did not write the checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.manifests.yaml import Document, Path_


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (file, line, field), what, and what to do."""

    file: str
    line: int
    field: str
    message: str
    hint: str | None = None
    code: str = "manifest.invalid"

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" + (f": {self.field}" if self.field else "")
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")

    def as_dict(self) -> dict[str, Any]:
        """The problem as data."""
        return {name: getattr(self, name) for name in ("file", "line", "field", "message", "hint", "code")}


class ManifestError(ConfigurationError):
    """Manifests have problems; nothing was applied. `problems` has every one."""

    code = "manifest.invalid"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a manifest stands, so that a problem can name its file and line."""

    document: Document

    def problem(self, path: Path_, message: str, hint: str | None = None, code: str = "manifest.invalid") -> Problem:
        """A problem at `path` within the manifest."""
        return Problem(self.document.file, self.document.line(path), spelled(path), message, hint, code)

    @property
    def folder(self) -> Path:
        """The folder that relative paths in the manifest start from."""
        return Path(self.document.file).parent


def spelled(path: Path_) -> str:
    """A path as people write it: `spec.to[0].when`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def problems_of(
    error: ValidationError, origin: Origin, prefix: Path_, model: type[BaseModel] | None = None
) -> list[Problem]:
    """What pydantic found, said for people: the field's own name, the line, the nearest valid name for an unknown one."""
    found = []
    for item in error.errors(include_url=False):
        path = (*prefix, *_real_path(item["loc"], origin, prefix))
        message, hint = item["msg"].removeprefix("Value error, "), None
        code = "manifest.invalid"
        if item["type"] == "extra_forbidden":
            message = f"unknown field {path[-1]!r}"
            hint = did_you_mean(str(path[-1]), _fields_at(model, item["loc"][:-1])) if model else None
            code = "manifest.unknown_field"
        elif item["type"] == "missing":
            message, code = f"the field {path[-1]!r} is missing", "manifest.missing_field"
        elif "input" in item and isinstance(item["input"], (str, int, float, bool)) and "found" not in message:
            message += f", found {str(item['input'])[:60]!r}" if "secret" not in message else ""
        found.append(origin.problem(path, message, hint, code))
    return found


def _real_path(loc: tuple[str | int, ...], origin: Origin, prefix: Path_) -> Path_:
    """pydantic's location without the names of union branches, which stand in no file."""
    path: Path_ = ()
    for index, part in enumerate(loc):
        here = _value_at(origin.document.data, (*prefix, *path))
        inside = (isinstance(here, Mapping) and part in here) or (isinstance(here, list) and isinstance(part, int))
        if inside or (index == len(loc) - 1 and isinstance(here, Mapping)):
            path = (*path, part)
    return path


def _value_at(data: Any, path: Path_) -> Any:
    for part in path:
        try:
            data = data[part]
        except (KeyError, IndexError, TypeError):
            return None
    return data


def _fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The field names of the model that `loc` leads to from `model`."""
    current: Any = model
    for part in loc:
        if isinstance(part, int):
            continue
        fields = {field.alias or name: field for name, field in current.model_fields.items()}
        if part not in fields:
            continue
        nested = _models_in(fields[part].annotation)
        if not nested:
            return []
        current = nested[0]
    return [field.alias or name for name, field in current.model_fields.items()]


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def path_in(where: str | None) -> Path_:
    """The path that `spec.to[0].when` spells; empty for what is no path of a manifest."""
    if not where or not where.startswith("spec"):
        return ()
    parts: list[str | int] = []
    for part in where.replace("]", "").split("."):
        name, *indexes = part.split("[")
        parts += [name, *(int(index) for index in indexes)]
    return tuple(parts)
