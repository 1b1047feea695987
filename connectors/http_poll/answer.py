"""The items of an answer."""

from __future__ import annotations

from typing import Any

import orjson

from trunkline.core.errors import RetriableError
from trunkline.core.http import HttpResponse

_MISSING = object()


def at_path(value: Any, path: str, default: Any = _MISSING) -> Any:
    """What stands at a dotted path of maps; `default`, or KeyError without one, where nothing does."""
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            if default is _MISSING:
                raise KeyError(path)
            return default
        value = value[name]
    return value


def json_items(response: HttpResponse, path: str) -> tuple[list[Any], Any]:
    """The list of items and the whole answer. Raises `RetriableError` for an answer without that list."""
    if response.status == 204 or not response.content.strip():
        return [], None
    answer = response.json()
    found = at_path(answer, path, None) if path else answer
    if not isinstance(found, list):
        place = f"at {path!r}" if path else "as the whole"
        raise RetriableError(
            f"{response.request} answered {response.status} without a list {place}: found {_kind(found)}",
            hint="look at config.items",
            code="http_poll.no_items",
        )
    return found, answer


def line_items(response: HttpResponse) -> list[Any]:
    """The items of JSON Lines; a line that is no JSON comes as its bytes."""
    items: list[Any] = []
    for line in response.content.splitlines():
        if line.strip():
            try:
                items.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                items.append(line)
    return items


def _kind(value: Any) -> str:
    return {dict: "a map", str: "text", type(None): "nothing"}.get(type(value), type(value).__name__)
