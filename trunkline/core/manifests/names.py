"""Names of manifests and of topics: which can be, and what to write instead of one that can't."""

from __future__ import annotations

import re
import unicodedata
from typing import Annotated, Any

from pydantic import AfterValidator, WithJsonSchema
from pydantic_core import PydanticCustomError

_NAME = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_TOPIC_NAME = r"^[a-zA-Z0-9][a-zA-Z0-9._-]*(\.\*)?$"
_LONGEST_TOPIC = 249
"""Kafka's own limit of a topic's name."""


def _name(value: str) -> str:
    if not re.fullmatch(_NAME[1:-1], value):
        likely = re.sub(r"[^a-z0-9]+", "-", _plain_letters(value).lower()).strip("-")[:63].rstrip("-")
        raise _misnamed(
            f"{value[:80]!r} can't be a name: lower-case letters a to z, digits and hyphens can, 63 at the most, no hyphen first or last",
            likely,
        )
    return value


def _topic_name(value: str) -> str:
    if not re.fullmatch(_TOPIC_NAME[1:-1], value) or len(value) > _LONGEST_TOPIC:
        likely = re.sub(r"[^a-zA-Z0-9._-]+", ".", _plain_letters(value)).strip("._-")[:_LONGEST_TOPIC]
        raise _misnamed(
            f"{value[:80]!r} can't be the name of a topic: letters a to z, digits, dots, hyphens and underscores can, "
            f"{_LONGEST_TOPIC} at the most, and `.*` at the end for a family",
            likely,
        )
    return value


def _plain_letters(text: str) -> str:
    """The text without accents: `Zürich` is `Zurich`."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))


def _misnamed(message: str, likely: str) -> PydanticCustomError:
    hint = f"write {likely}" if likely else "write another name"
    return PydanticCustomError("name", "{message}", {"message": message, "hint": hint})


Name = Annotated[str, AfterValidator(_name), WithJsonSchema({"type": "string", "pattern": _NAME})]
TopicName = Annotated[
    str,
    AfterValidator(_topic_name),
    WithJsonSchema({"type": "string", "pattern": _TOPIC_NAME, "maxLength": _LONGEST_TOPIC}),
]


def topics_as_list(value: Any) -> Any:
    """One topic is a list of one. A text of several raises pydantic's error that says how they are written."""
    if not isinstance(value, str):
        return value
    several = [part for part in re.split(r"[,\s]+", value) if part]
    if len(several) > 1:
        message = f"one topic or a list of topics is expected, found {value[:80]!r}"
        hint = f"write [{', '.join(several)[:80]}]"
        raise PydanticCustomError("name", "{message}", {"message": message, "hint": hint})
    return [value]
