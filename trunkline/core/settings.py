"""Settings classes: one declaration that validates, renders the docs page and gives editors their JSON Schema.

Every field has a description; a field that is a secret has the type `Secret`; lengths of time are `Duration` (seconds in
code, `30s`, `5m`, `1h30m` in manifests) and sizes are `Size` (bytes in code, `64 KiB`, `10 MB` in manifests).
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from trunkline.core.errors import ConfigurationError
from trunkline.core.redaction import learn_parts
from trunkline.core.secret import Secret, as_written, refuse_references, resolve_references, sounds_secret

__all__ = ["Duration", "Secret", "Settings", "Size", "parse_duration", "parse_size", "setting"]


class Settings(BaseModel):
    """Base of every settings class: unknown fields are refused and values never change after validation."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _resolve_plain_references(cls, data: Any) -> Any:
        """`${env:NAME}` in a field that is no secret is resolved here where the field takes references, unless those stay as they are
        written, and is refused where it does not. Secrets stay references until `reveal()`.
        """
        if not isinstance(data, dict):
            return data
        refuse_truth_for_numbers(cls, data)
        by_name = {field.alias or name: field for name, field in cls.model_fields.items()}
        resolved = dict(data)
        for name, value in data.items():
            field = by_name.get(name)
            if field is not None and not _holds(field.annotation, (Secret, BaseModel)):
                try:
                    resolved[name] = _resolved(value, name) if takes_references(field) else _unresolved(value)
                except ConfigurationError as error:
                    details = {"message": error.message, "hint": error.hint, "code": error.code, "field": name}
                    raise PydanticCustomError("reference", "{field}: {message}", details) from error
        return resolved


def refuse_truth_for_numbers(model: type[BaseModel], data: dict[str, Any]) -> None:
    """Raises pydantic's error for `yes` or `true` where a number is asked for: Python, and so pydantic, takes them for 1 and 0."""
    for name, field in model.model_fields.items():
        called = field.alias or name
        found = data.get(called)
        if isinstance(found, bool) and _holds(field.annotation, (int, float)) and not _takes_truth(field.annotation):
            raise PydanticCustomError("truth", "{field}: a number is expected", {"field": called})


def _takes_truth(annotation: Any) -> bool:
    if annotation is Any or annotation is bool:
        return True
    return any(part is True or part is False or _takes_truth(part) for part in get_args(annotation))


_REFERENCES = "references"


def setting(
    default: Any = ...,
    *,
    description: str,
    examples: list[Any] | None = None,
    references: bool = False,
    **constraints: Any,
) -> Any:
    """A field of a settings class. `description` is one or two sentences that say what it does and its unit.

    With `references`, `${env:NAME}` is resolved in it although it is no secret: for what differs from one place to another, such as a
    host's address. A field of the type `Secret` takes references anyway, and in all others they are refused, because who writes a
    manifest may not read what its worker can read.
    """
    if references:
        description += " Takes references, such as `${env:NAME}`."
        constraints["json_schema_extra"] = {_REFERENCES: True}
    return Field(default, description=description, examples=examples, **constraints)


def takes_references(field: FieldInfo) -> bool:
    """Whether references are resolved in this field although it is no secret."""
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get(_REFERENCES) is True


def _holds(annotation: Any, types: tuple[type, ...]) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, types):
        return True
    return any(_holds(part, types) for part in get_args(annotation))


def _resolved(value: Any, name: str, *, secret: bool = False) -> Any:
    """A value with its references resolved; `name` tells whether they are secrets. What of an address is one is learned too.

    In a map it is the manifest that gives the names: of headers, parameters, fields of a form. They tell nothing (`X-Partner` may
    well carry a key), so what a reference stands for there is a secret, whatever it is called.
    """
    if isinstance(value, str):
        if "${" not in value:
            return value
        found = resolve_references(value, secret=secret or sounds_secret(name))
        if not as_written():
            learn_parts(found)
        return found
    if isinstance(value, list):
        return [_resolved(item, name, secret=secret) for item in value]
    if isinstance(value, dict):
        return {key: _resolved(item, str(key), secret=True) for key, item in value.items()}
    return value


def _unresolved(value: Any) -> Any:
    """The value, which holds no reference: raises `ConfigurationError` where it does."""
    if isinstance(value, str):
        if "${" in value:
            refuse_references(value)
    elif isinstance(value, (list, dict)):
        for item in value if isinstance(value, list) else value.values():
            _unresolved(item)
    return value


_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST = 100 * 365 * 86400.0
_SIZE_FORM = re.compile(r"^(\d+(?:\.\d+)?)\s*([KMGT]i?B|B)?$", re.IGNORECASE)
_BYTES = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}


def parse_duration(value: Any) -> Any:
    """Seconds from `1h30m`, `250ms` or a plain number of seconds. Raises ValueError that names the accepted forms."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < _LONGEST else math.inf
    elif isinstance(value, str):
        text = value.strip()
        parts = _DURATION_PART.findall(text)
        if re.fullmatch(r"\d+(\.\d+)?", text):
            seconds = float(text)
        elif parts and not _DURATION_PART.sub("", text).strip():
            seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
        else:
            raise ValueError(f"a length of time is expected, such as 30s, 5m or 1h30m, found {value[:60]!r}")
    else:
        raise ValueError("a length of time is expected, such as 30s, 5m or 1h30m")  # noqa: TRY004 (pydantic wants ValueError)
    if not seconds < _LONGEST:  # also what is no number
        raise ValueError("a length of time of less than 100 years is expected")
    return seconds


def parse_size(value: Any) -> Any:
    """Bytes from `64 KiB`, `10 MB` or a plain number of bytes. Raises ValueError that names the accepted forms."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = _SIZE_FORM.match(value.strip()) if isinstance(value, str) else None
    if match is None:
        found = f", found {value[:60]!r}" if isinstance(value, str) else ""
        raise ValueError(f"a size is expected, such as 64 KiB or 10 MB{found}")
    size = float(match.group(1)) * _BYTES[(match.group(2) or "B").lower()]
    if not size < 2**63:
        raise ValueError("a size of less than 8 EiB is expected")
    return int(size)


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0),
    WithJsonSchema(
        {"type": ["string", "number"], "description": "a length of time: 250ms, 30s, 5m, 1h30m, or seconds"}
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(ge=0),
    WithJsonSchema({"type": ["string", "integer"], "description": "a size: 64 KiB, 10 MB, or bytes"}),
]
