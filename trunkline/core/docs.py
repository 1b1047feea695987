"""Documentation of plug-ins, made from their settings classes: rows for tables, Markdown pages, JSON Schema for editors and forms."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from trunkline.core.contracts import Plugin, PushSource, Sink, Step
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.plugins import GROUPS, Kind, load_plugin, plugin_names

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))
_SIZES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_SECRET = "secret-reference"  # noqa: S105 (a format's name)


@dataclass(frozen=True, slots=True)
class Row:
    """One setting. `name` has the path of nested ones, `a.b`, `a[].b` in a list and `a.*.b` in a map; `default` is text.

    `variant` names the kind of object that the setting belongs to, where its parent can be one of several.
    """

    name: str
    type: str
    required: bool
    default: str | None
    secret: bool
    description: str
    example: str | None
    variant: str | None = None


def listing() -> list[dict[str, str]]:
    """Kind, name and summary of every installed plug-in; of one whose client library is missing, what to install."""
    found = []
    for kind in GROUPS:
        for name in plugin_names(kind):
            try:
                summary = load_plugin(kind, name).summary
            except ConfigurationError as error:
                summary = f"not usable: {error.message}" + (f" ({error.hint})" if error.hint else "")
            found.append({"name": name, "kind": kind, "summary": summary})
    return found


def with_name(name: str, kind: str | None = None) -> list[tuple[Kind, type[Plugin]]]:
    """The plug-ins of a name, of one kind or of all. Raises `ConfigurationError` with the nearest name where there is none."""
    found = [(one, load_plugin(one, name)) for one in GROUPS if kind in {None, one} and name in plugin_names(one)]
    if not found:
        known = {other for one in GROUPS if kind in {None, one} for other in plugin_names(one)}
        raise ConfigurationError(
            f"no {kind or 'plug-in'} is called {name!r}", hint=did_you_mean(name, known), code="plugin.unknown"
        )
    return found


def schema_of(kind: Kind, plugin: type[Plugin]) -> dict[str, Any]:
    """The JSON Schemas of a plug-in's `config` and, where it has one, of its connection's."""
    connection = plugin.connection_type
    found: dict[str, Any] = {"kind": kind, "config": plugin.settings_type.model_json_schema()}
    if connection is not None:
        found["connection"] = connection.model_json_schema()
    return found


def describe_plugin(kind: Kind, name: str, plugin: type[Plugin]) -> dict[str, Any]:
    """A plug-in as data: summary, promises, rows of its settings and of its connection's (None where it takes none)."""
    connection = plugin.connection_type
    return {
        "kind": kind,
        "name": name,
        "summary": plugin.summary,
        "promises": _promises(plugin),
        "settings": [asdict(row) for row in settings_rows(plugin.settings_type)],
        "connection": [asdict(row) for row in settings_rows(connection)] if connection is not None else None,
    }


def settings_rows(model: type[BaseModel]) -> list[Row]:
    """Every setting of a settings class, nested ones after the one that holds them."""
    schema = model.model_json_schema()
    return list(_rows(schema, schema.get("$defs", {}), "", None, ()))


def markdown(kind: Kind, name: str, plugin: type[Plugin]) -> str:
    """The page of a plug-in: its README's words, then the tables of its settings."""
    parts = [
        f"# {name} ({kind})",
        "",
        "<!-- Generated: the text from the plug-in's README, the tables from its settings classes. -->",
        "",
    ]
    prose = readme(name, plugin)
    parts += [prose] if prose else [plugin.summary]
    promises = _promises(plugin)
    if promises:
        parts += ["", "## What it promises", "", *(f"- {line}" for line in promises)]
    parts += ["", "## Settings", ""]
    if issubclass(plugin, Step) and plugin.shorthand is not None:
        parts += [f"`{name}: VALUE` is short for `{name}: {{{plugin.shorthand}: VALUE}}`.", ""]
    parts += [_about(plugin.settings_type), "", table(settings_rows(plugin.settings_type))]
    if plugin.connection_type is not None:
        parts += ["", "## Settings of its connection", "", _about(plugin.connection_type), ""]
        parts += [table(settings_rows(plugin.connection_type))]
    return "\n".join(parts).rstrip() + "\n"


def table(rows: list[Row]) -> str:
    """Rows as a Markdown table."""
    if not rows:
        return "There is nothing to set."
    lines = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    for row in rows:
        default = "required" if row.required else ("" if row.default is None else f"`{_cell(row.default)}`")
        if row.default == "":
            default = "empty"
        meaning = row.description
        if row.variant is not None:
            meaning = f"*{row.variant}*: {meaning}" if meaning else f"*{row.variant}*"
        if row.example is not None and len(row.example) <= 100:
            meaning += f" Example: `{row.example}`"
        lines.append(f"| `{row.name}` | {_cell(row.type)} | {default} | {_cell(meaning)} |")
    return "\n".join(lines)


def readme(name: str, plugin: type[Plugin]) -> str | None:
    """The hand-written part: the README beside the plug-in's module, or its section `## name` where several share one."""
    file = Path(inspect.getfile(plugin)).parent / "README.md"
    if not file.is_file():
        return None
    lines = file.read_text(encoding="utf-8").strip().splitlines()
    title = lines[0].removeprefix("#").strip() if lines and lines[0].startswith("# ") else ""
    if title.casefold().replace(" ", "_") == name:
        return "\n".join(lines[1:]).strip()
    return _section(lines, name)


def _section(lines: list[str], name: str) -> str | None:
    begin = next(
        (index for index, line in enumerate(lines) if line.strip("# `").casefold() == name and line.startswith("## ")),
        None,
    )
    if begin is None:
        return None
    end = next((index for index in range(begin + 1, len(lines)) if lines[index].startswith("## ")), len(lines))
    return "\n".join(lines[begin + 1 : end]).strip()


def _about(model: type[BaseModel]) -> str:
    return inspect.getdoc(model) or ""


def _promises(plugin: type[Plugin]) -> list[str]:
    if issubclass(plugin, PushSource):
        return ["It is knocked at: every worker listens, and a sender is answered after Kafka has the event."]
    if not issubclass(plugin, Sink):
        return []
    promises = plugin.promises
    lines = [
        "Writing a record again has no second effect."
        if promises.idempotent
        else "At least once: a record may arrive twice after a crash, a hand-over or a lost answer."
    ]
    if promises.contiguous:
        lines.append("A batch is a gapless range of one partition, built again byte for byte after a crash.")
    lines.append(f"At most {promises.max_batch} records a call." if promises.max_batch > 1 else "One record a call.")
    return lines


# --- rows from JSON Schema --------------------------------------------------------------------------------------------


def _rows(
    schema: Mapping[str, Any], defs: Mapping[str, Any], prefix: str, variant: str | None, seen: tuple[str, ...]
) -> Iterator[Row]:
    required = set(schema.get("required", ()))
    for name, field in schema.get("properties", {}).items():
        if variant is not None and variant == f"{name}: {field.get('const')}":
            continue  # its parent's type says which variants there are
        path = f"{prefix}{name}"
        examples = field.get("examples")
        yield Row(
            name=path,
            type=type_text(field, defs),
            required=name in required,
            default=None if name in required else _default(field),
            secret=_is_secret(field),
            description=field.get("description", ""),
            example=_plain(examples[0]) if examples else None,
            variant=variant,
        )
        for suffix, reference in _objects(field):
            if reference in seen:
                continue
            nested = defs[reference]
            alternatives = len({other for _, other in _objects(field)}) > 1
            own = _tag(nested, reference) if alternatives else variant
            yield from _rows(nested, defs, f"{path}{suffix}.", own, (*seen, reference))


def _objects(field: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The object types that a field can hold, with what stands between its name and theirs: nothing, `[]` or `.*`."""
    found: list[tuple[str, str]] = []
    if "$ref" in field:
        found.append(("", field["$ref"].rpartition("/")[2]))
    for part in (*field.get("anyOf", ()), *field.get("oneOf", ()), *field.get("allOf", ())):
        found += _objects(part)
    if isinstance(field.get("items"), dict):
        found += [("[]" + suffix, reference) for suffix, reference in _objects(field["items"])]
    if isinstance(field.get("additionalProperties"), dict):
        found += [(".*" + suffix, reference) for suffix, reference in _objects(field["additionalProperties"])]
    return found


def _tag(schema: Mapping[str, Any], reference: str) -> str:
    """What tells a variant from its siblings: the value of its constant field, else the name of its class."""
    for name, field in schema.get("properties", {}).items():
        if "const" in field:
            return f"{name}: {field['const']}"
    return reference


def type_text(field: Mapping[str, Any], defs: Mapping[str, Any]) -> str:
    """A JSON Schema type in words."""
    if field.get("format") == _SECRET:
        return "secret"
    if "$ref" in field:
        nested = defs.get(field["$ref"].rpartition("/")[2], {})
        return " or ".join(map(_plain, nested["enum"])) if "enum" in nested else "settings"
    if "const" in field:
        return f"`{_plain(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{_plain(one)}`" for one in field["enum"])
    options = [*field.get("anyOf", ()), *field.get("oneOf", ())]
    if options:
        tags = _tags(field, defs)
        if tags is not None:
            return tags
        names = list(dict.fromkeys(type_text(one, defs) for one in options if one.get("type") != "null"))
        return " or ".join(names)
    kind = field.get("type")
    if kind == ["string", "number"]:
        return "length of time"
    if kind == ["string", "integer"]:
        return "size"
    if kind == "array":
        items = field.get("items")
        return f"list of {_plural(type_text(items, defs))}" if isinstance(items, dict) and items else "list"
    if kind == "object":
        values = field.get("additionalProperties")
        return f"map of {_plural(type_text(values, defs))}" if isinstance(values, dict) and values else "map"
    return {"string": "text", "integer": "whole number", "number": "number", "boolean": "true or false"}.get(
        str(kind), "any value"
    )


def _tags(field: Mapping[str, Any], defs: Mapping[str, Any]) -> str | None:
    """Of a field that holds one of several kinds of settings: the setting that tells them apart, with its values."""
    objects = [reference for suffix, reference in _objects(field) if not suffix]
    tags = [_tag(defs[reference], reference).partition(": ") for reference in objects if reference in defs]
    if len(tags) < 2 or len({name for name, _, _ in tags}) != 1 or not all(value for _, _, value in tags):
        return None
    return f"settings, by their `{tags[0][0]}`: " + ", ".join(f"`{value}`" for _, _, value in tags)


def _plural(text: str) -> str:
    return {"text": "texts", "secret": "secrets", "whole number": "whole numbers", "number": "numbers"}.get(text, text)


def _is_secret(field: Mapping[str, Any]) -> bool:
    parts = [*field.get("anyOf", ()), *field.get("oneOf", ())]
    if isinstance(field.get("items"), dict):
        parts.append(field["items"])
    return field.get("format") == _SECRET or any(_is_secret(one) for one in parts)


def _default(field: Mapping[str, Any]) -> str | None:
    if "default" not in field or field["default"] is None:
        return None
    value = field["default"]
    kinds = [field.get("type"), *(one.get("type") for one in field.get("anyOf", ()))]
    if ["string", "number"] in kinds and isinstance(value, (int, float)):
        return _duration_text(float(value))
    if ["string", "integer"] in kinds and isinstance(value, int):
        return _size_text(value)
    if isinstance(value, dict) and "$ref" in field:
        return None  # its own settings have rows with their defaults
    return _plain(value)


def _duration_text(seconds: float) -> str:
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"


def _size_text(size: int) -> str:
    for factor, unit in _SIZES:
        if size >= factor and size % factor == 0:
            return f"{size // factor} {unit}"
    return str(size)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _cell(text: str | None) -> str:
    """Text that does not end a Markdown cell."""
    return re.sub(r"\s+", " ", text or "").replace("|", "\\|")
