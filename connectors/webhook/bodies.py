"""Reading bodies that strangers wrote: JSON and forms, within limits that hold before anything is built in memory."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

# Only encodings in which ASCII bytes are ASCII: the limits are checked on bytes.
_CHARSETS = {
    "utf-8": "utf-8-sig",
    "utf8": "utf-8-sig",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin-1": "latin-1",
    "windows-1252": "cp1252",
}
_CHARSET = re.compile(r';\s*charset\s*=\s*"?([^\s;"]+)', re.IGNORECASE)
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{},:]', re.DOTALL)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MAX_FORM_FIELDS = 1000


class UnreadableError(Exception):
    """The body is not what its content type says: it goes to quarantine."""


class TooMuchError(Exception):
    """The body is nested too deeply or has too many elements: it is refused and not kept."""


@dataclass(frozen=True, slots=True)
class Body:
    """A body that was read: its text as received, and its JSON value (or form fields), or None for other text."""

    text: str
    value: Any
    form: bool = False


def read_body(raw: bytes, headers: Mapping[str, str], *, max_depth: int, max_elements: int) -> Body:
    """Reads a body by its `Content-Type`. JSON is assumed where none is said.

    A form with the one field `payload` or with `payload` holding a JSON object, as GitHub and Slack send them, gives that JSON;
    any other form gives its fields as text, those that repeat as lists.

    Raises `UnreadableError` (not the said charset, no JSON, a member twice, NaN) and `TooMuchError`.
    """
    media, charset = _content_type(headers.get("content-type", ""))
    try:
        text = raw.decode(charset)
    except UnicodeDecodeError as error:
        raise UnreadableError(f"the body is not {charset.removesuffix('-sig')} (byte {error.start})") from None
    if media == "application/x-www-form-urlencoded":
        return Body(text, _read_form(text, max_depth, max_elements), form=True)
    if media in ("", "application/json", "text/json", "text/plain", "application/octet-stream") or media.endswith(
        "+json"
    ):
        if media in ("text/plain", "application/octet-stream") and text.lstrip()[:1] not in ("{", "["):
            return Body(text, None)
        return Body(text, read_json(text, max_depth=max_depth, max_elements=max_elements))
    return Body(text, None)


def read_json(text: str, *, max_depth: int, max_elements: int) -> Any:
    """JSON by RFC 8259 and I-JSON (RFC 7493): no member twice, no NaN, no lone surrogates, numbers that a double can hold."""
    raw = text.encode("utf-8", "surrogatepass")
    _check_limits(raw, max_depth, max_elements)
    try:
        value = json.loads(
            text, object_pairs_hook=_members, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        raise UnreadableError(f"no JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise TooMuchError("the body is nested too deeply") from None
    if _ESCAPED_SURROGATE.search(raw) and _SURROGATE.search(json.dumps(value, ensure_ascii=False)):
        raise UnreadableError("no JSON: half of a surrogate pair, which is no character")
    return value


def at_path(value: Any, path: str | None) -> Any:
    """What stands at a dotted path, or None. A number steps into a list; `$` is the value itself."""
    if path is None:
        return None
    if path == "$":
        return value
    for step in path.split("."):
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list) and step.isascii() and step.isdigit() and len(step) < 8 and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def text_at(value: Any, path: str | None) -> str | None:
    """The text or number at a dotted path as text, or None."""
    found = at_path(value, path)
    if isinstance(found, str):
        return found or None
    return str(found) if isinstance(found, int) and not isinstance(found, bool) else None


def _content_type(header: str) -> tuple[str, str]:
    media = header.partition(";")[0].strip().lower()
    match = _CHARSET.search(header)
    name = match.group(1).lower() if match else "utf-8"
    if name not in _CHARSETS:
        raise UnreadableError(f"the charset {name[:40]!r} is not taken: {', '.join(sorted(_CHARSETS))}")
    return media, _CHARSETS[name]


def _read_form(text: str, max_depth: int, max_elements: int) -> Any:
    try:
        pairs = parse_qsl(
            text, keep_blank_values=True, strict_parsing=False, errors="strict", max_num_fields=_MAX_FORM_FIELDS
        )
    except UnicodeDecodeError:
        raise UnreadableError("the form is not UTF-8") from None
    except ValueError:
        raise TooMuchError(f"the form has more than {_MAX_FORM_FIELDS} fields") from None
    if [name for name, _ in pairs].count("payload") == 1:
        payload = next(value for name, value in pairs if name == "payload")
        if len(pairs) == 1 or payload.startswith("{"):
            return read_json(payload, max_depth=max_depth, max_elements=max_elements)
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name not in fields:
            fields[name] = value
        elif isinstance(fields[name], list):
            fields[name].append(value)
        else:
            fields[name] = [fields[name], value]
    return fields


def _check_limits(raw: bytes, max_depth: int, max_elements: int) -> None:
    """The cheap upper bounds first: only a body that could break a limit is read token by token."""
    opened = raw.count(b"[") + raw.count(b"{")
    if opened <= max_depth and opened + raw.count(b",") < max_elements:
        return
    depth = elements = 0
    for match in _TOKENS.finditer(raw):
        token = match.group()
        if token in b"[{":
            depth += 1
            elements += 1
            if depth > max_depth:
                raise TooMuchError(f"the body is nested deeper than {max_depth} levels")
        elif token in b"]}":
            depth -= 1
        elif token == b",":
            elements += 1
        if elements > max_elements:
            raise TooMuchError(f"the body has more than {max_elements} elements")


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise UnreadableError(f"no plain JSON: the member {twice[:60]!r} occurs twice in one object")
    return members


def _no_constant(name: str) -> Any:
    raise UnreadableError(f"no JSON: {name} is no JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise UnreadableError("no plain JSON: a number too large for a double")
    return number


def _integer(text: str) -> int:
    if len(text) > 40:
        raise UnreadableError("no plain JSON: an integer of more than 40 digits")
    return int(text)
