"""What a plug-in says of itself: settings, names, secrets, summary, README."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel

from trunkline.core.contracts import Plugin
from trunkline.core.secret import Secret

_CANONICAL = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "secret", "secrets", "token", "tokens", "credential", "credentials"}
)
_SECRET_KEYS = frozenset({"api", "private", "access", "secret", "signing", "encryption", "hmac", "account"})


def settings_classes(plugin: type[Plugin]) -> list[type[BaseModel]]:
    """The settings class, the connection's class, and every class within them."""
    found: dict[type[BaseModel], None] = {}
    for outer in (plugin.settings_type, plugin.connection_type):
        if outer is not None:
            _collect(outer, found)
    return list(found)


def undescribed_fields(plugin: type[Plugin]) -> list[str]:
    """The fields that have no description. The tag of a choice needs none: its class says what it is."""
    return [place for place, field in _fields(plugin) if not field.description and not _is_tag(field.annotation)]


def misnamed_fields(plugin: type[Plugin]) -> list[str]:
    """The fields whose names in manifests are not snake_case."""
    return [place for place, _ in _fields(plugin) if not _CANONICAL.fullmatch(place.rpartition(".")[2])]


def plain_secrets(plugin: type[Plugin], exceptions: frozenset[str]) -> list[str]:
    """The fields that are called like secrets and accept plain text."""
    return [
        place
        for place, field in _fields(plugin)
        if (name := place.rpartition(".")[2]) not in exceptions
        and looks_secret(name)
        and _may_be_text(field.annotation)
    ]


def looks_secret(name: str) -> bool:
    """Whether a field of this name holds a secret: `client_secret`, `api_key`, `token`; not `token_url`, not `key_column`."""
    words = name.split("_")
    return words[-1] in _SECRET_WORDS or (len(words) > 1 and words[-1] == "key" and words[-2] in _SECRET_KEYS)


def readme_of(plugin: type[Plugin]) -> Path:
    """The README in the plug-in's folder."""
    return Path(inspect.getfile(plugin)).with_name("README.md")


def schema_text(plugin: type[Plugin]) -> str:
    """The JSON Schemas of the settings and of the connection."""
    kinds = [kind for kind in (plugin.settings_type, plugin.connection_type) if kind is not None]
    return json.dumps([kind.model_json_schema() for kind in kinds])


def _fields(plugin: type[Plugin]) -> Iterator[tuple[str, Any]]:
    for kind in settings_classes(plugin):
        for name, field in kind.model_fields.items():
            yield f"{kind.__name__}.{field.alias or name}", field


def _is_tag(annotation: Any) -> bool:
    return get_origin(annotation) is Literal and len(get_args(annotation)) == 1


def _collect(annotation: Any, found: dict[type[BaseModel], None]) -> None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        if annotation not in found:
            found[annotation] = None
            for field in annotation.model_fields.values():
                _collect(field.annotation, found)
        return
    for part in get_args(annotation):
        _collect(part, found)


def _may_be_text(annotation: Any) -> bool:
    """Whether plain text is accepted: a `str` somewhere that is no `Secret`, a literal or a class of its own."""
    if annotation is str or annotation is Any:
        return True
    if isinstance(annotation, type):
        return issubclass(annotation, str) and not issubclass(annotation, Secret)
    return any(_may_be_text(part) for part in get_args(annotation) if not isinstance(part, str))
