"""What of an event the settings of a plug-in name, and whether events of a schema have it: found before the first record comes.

A plug-in lists its uses; what they mean for a schema is decided here, for all plug-ins alike. `where` is the place of each in the
manifest's `config`, such as `config.blocks[0].text.text`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.expressions import compile_expression, type_of_avro
from trunkline.core.expressions.types import CelType
from trunkline.core.template_check import Missing, missing_fields

MISSING_FIELD = "manifest.missing_event_field"


@dataclass(frozen=True, slots=True)
class TemplateUse:
    """A template over an event."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class ExpressionUse:
    """A CEL expression over an event."""

    text: str
    where: str


@dataclass(frozen=True, slots=True)
class FieldUse:
    """A field by its names from the record inwards. `kinds` are those of CEL's types that it may have; empty for any."""

    path: tuple[str, ...]
    where: str
    kinds: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RecordUse:
    """The value must be a record, and has none of the fields `reserved`, whose names the plug-in gives to parts of the envelope."""

    where: str
    reserved: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """The names of all fields that a source gives, with the place of the list in its `config`."""

    names: tuple[str, ...]
    where: str


Use = TemplateUse | ExpressionUse | FieldUse | RecordUse


def check_use(use: Use, schemas: Mapping[str, Any]) -> None:
    """Checks one use for events of these schemas (JSON form, by topic). Raises `ConfigurationError` with the place in `config`."""
    if isinstance(use, ExpressionUse):
        _check_expression(use, schemas)
    elif isinstance(use, TemplateUse):
        _check_template(use, schemas)
    else:
        for topic, schema in schemas.items():
            if isinstance(use, FieldUse):
                _check_field(use, type_of_avro(schema), topic)
            else:
                _check_record(use, type_of_avro(schema), topic)


def check_expression(text: str, schemas: Mapping[str, Any], where: str, *, expect: CelType | None = None) -> None:
    """Checks a CEL expression for events of each of these schemas. Raises `ConfigurationError`.

    Where schemas differ and it asks with `has(…)` what an event has, a field must be known to one of them only.
    """
    distinct = list({repr(schema): schema for schema in schemas.values()}.values())
    if len(distinct) > 1 and "has(" in text:
        found = compile_expression(text, expect=expect, where=where)
        paths = [path[1:] for path in found.names if path[0] == "event" and len(path) > 1]
        kinds = [type_of_avro(schema) for schema in distinct]
        for path in sorted(paths):
            if not any(_known(kind, path) for kind in kinds):
                known = sorted({name for kind in kinds for name in kind.fields})
                raise ConfigurationError(
                    f"none of {', '.join(schemas)} has a field {'.'.join(path)!r}",
                    where=where,
                    hint=did_you_mean(path[0], known),
                    code="expression.unknown_field",
                )
        return
    for schema in distinct:
        compile_expression(text, schema=schema, expect=expect, where=where)


def _check_expression(use: ExpressionUse, schemas: Mapping[str, Any]) -> None:
    check_expression(use.text, schemas, use.where)


def _check_template(use: TemplateUse, schemas: Mapping[str, Any]) -> None:
    """A field that a template asks for (`is defined`, `default`) must be known to one schema, any other to all of them."""
    found = {topic: missing_fields(use.text, schema) for topic, schema in schemas.items()}
    for topic, missing in found.items():
        for one in missing:
            if not one.asked_for or all(_lacks(other, one) for other in found.values()):
                place = f"line {one.line}: " if "\n" in use.text else ""
                raise ConfigurationError(
                    f"{place}{one.owner} has no {one.what} {one.name!r}" + (f" in {topic}" if len(schemas) > 1 else ""),
                    where=use.where,
                    hint=did_you_mean(one.name, one.known),
                    code=MISSING_FIELD,
                )


def _lacks(missing: Sequence[Missing], one: Missing) -> bool:
    return any(other.path == one.path for other in missing)


def _check_field(use: FieldUse, kind: CelType, topic: str) -> None:
    for index, name in enumerate(use.path):
        if kind.kind == "object":
            if name not in kind.fields:
                raise ConfigurationError(
                    f"{kind.name or 'the record'} of {topic} has no field {'.'.join(use.path[: index + 1])!r}",
                    where=use.where,
                    hint=did_you_mean(name, kind.fields),
                    code=MISSING_FIELD,
                )
            kind = kind.fields[name]
        elif kind.kind == "map":
            kind = kind.args[1]
        elif kind.is_dyn:
            return
        else:
            owner = ".".join(use.path[:index]) or f"the value of {topic}"
            raise ConfigurationError(
                f"{owner} is a {kind}, and has no field {name!r}", where=use.where, code=MISSING_FIELD
            )
    if use.kinds and not kind.is_dyn and kind.kind not in use.kinds:
        wanted = " or ".join(sorted(use.kinds))
        raise ConfigurationError(
            f"{'.'.join(use.path)} of {topic} is {kind}, and {wanted} is expected", where=use.where, code=MISSING_FIELD
        )


def _check_record(use: RecordUse, kind: CelType, topic: str) -> None:
    if kind.is_dyn:
        return
    if kind.kind != "object":
        raise ConfigurationError(
            f"the value of {topic} is a {kind}, and a record is needed",
            where=use.where,
            hint="read a topic whose schema is an Avro record",
            code=MISSING_FIELD,
        )
    for name in use.reserved:
        if name in kind.fields:
            raise ConfigurationError(
                f"{kind.name} of {topic} has a field {name!r} of its own",
                where=use.where,
                hint="leave that part of the envelope out, or rename the field with a `map` step",
                code=MISSING_FIELD,
            )


def _known(kind: CelType, path: Sequence[str]) -> bool:
    for name in path:
        if kind.kind == "object":
            if name not in kind.fields:
                return False
            kind = kind.fields[name]
        elif kind.kind == "map":
            kind = kind.args[1]
        else:
            return True
    return True
