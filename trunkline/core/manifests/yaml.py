"""Reading YAML with the line of every value, and refusing what only surprises: aliases, tags, duplicate keys, huge files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trunkline.core.errors import ConfigurationError

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 64
# libyaml's parser is ten times as fast as the one in Python: with that, a file within the limit of size would take a minute.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """One YAML document: its data, and for the path of each value the line (from 1) where it stands."""

    data: Any
    lines: dict[Path_, int]
    file: str

    def line(self, path: Path_) -> int:
        """The line of the value at `path`, or of the nearest value around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def read_documents(text: str, file: str) -> list[Document]:
    """The documents of a YAML text. Raises `ConfigurationError` (`manifest.yaml`) with file and line."""
    if len(text.encode()) > MAX_BYTES:
        raise _error(f"the file is larger than {MAX_BYTES} bytes", file, 1)
    try:
        _refuse_aliases(text, file)
        nodes = list(yaml.compose_all(text, Loader=_Loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _error(str(error.problem or error.context or "no YAML"), file, mark.line + 1 if mark else 1) from error
    except yaml.YAMLError as error:
        raise _error(f"no YAML: {str(error).splitlines()[0]}", file, 1) from error
    documents = []
    for node in nodes:
        lines: dict[Path_, int] = {}
        data = _construct(node, (), lines, file)
        if data is not None:
            documents.append(Document(data, lines, file))
    return documents


def read_files(paths: list[Path]) -> list[Document]:
    """The documents of all `.yaml` and `.yml` files at `paths`; folders are read with their subfolders, sorted by name."""
    documents: list[Document] = []
    for path in paths:
        if path.is_dir():
            files = sorted(found for found in path.rglob("*") if found.suffix in {".yaml", ".yml"} and found.is_file())
        elif path.exists():
            files = [path]
        else:
            raise ConfigurationError(
                f"{path} does not exist", hint="name a manifest file or a folder of them", code="manifest.file"
            )
        for file in files:
            try:
                text = file.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigurationError(f"{file} can't be read: {error}", code="manifest.file") from error
            documents += read_documents(text, str(file))
    return documents


def _refuse_aliases(text: str, file: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark is not None else 1
        if isinstance(event, yaml.AliasEvent):
            raise _error("YAML aliases are refused", file, line, "write the value out")
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            raise _error("YAML anchors are refused", file, line, "write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise _error(f"nested deeper than {MAX_DEPTH} levels", file, line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _construct(node: yaml.Node, path: Path_, lines: dict[Path_, int], file: str) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _error("a key must be plain text", file, key_node.start_mark.line + 1)
            key = str(key_node.value)
            if key in result:
                raise _error(f"the key {key!r} occurs twice", file, key_node.start_mark.line + 1)
            result[key] = _construct(value_node, (*path, key), lines, file)
            lines[(*path, key)] = key_node.start_mark.line + 1
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(item, (*path, index), lines, file) for index, item in enumerate(node.value)]
    try:
        return yaml.SafeLoader("").construct_object(node, deep=True)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise _error(
            f"{node.value!r} can't be read as {node.tag.rsplit(':', 1)[-1]}", file, node.start_mark.line + 1
        ) from error


def _error(message: str, file: str, line: int, hint: str | None = None) -> ConfigurationError:
    return ConfigurationError(message, where=f"{file}:{line}", hint=hint, code="manifest.yaml")
