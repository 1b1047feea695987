"""Values of literals: numbers within their 64 bits, strings and bytes with CEL's escapes."""

from __future__ import annotations

import re

from trunkline.core.expressions.values import INT_MAX, UINT_MAX, Uint

_SIMPLE = {
    "a": 7,
    "b": 8,
    "f": 12,
    "n": 10,
    "r": 13,
    "t": 9,
    "v": 11,
    "\\": 92,
    "?": 63,
    '"': 34,
    "'": 39,
    "`": 96,
}
_ESCAPE = re.compile(
    r"\\(?:(?P<byte>[xX][0-9a-fA-F]{2}|[0-3][0-7]{2})|(?P<point>u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8})|(?P<simple>[abfnrtv\\?\"'`])|(?P<bad>.?))",
    re.DOTALL,
)


def int_value(text: str, *, negative: bool = False) -> int:
    """A decimal or hexadecimal int. Raises `ValueError` beyond int64."""
    value = int(text, 16) if text[:2] == "0x" else int(text, 10)
    if value > INT_MAX + negative:
        raise ValueError("this int is beyond 64 bits")
    return -value if negative else value


def uint_value(text: str) -> Uint:
    """A uint, with its suffix. Raises `ValueError` beyond uint64."""
    digits = text[:-1]
    value = int(digits, 16) if digits[:2] == "0x" else int(digits, 10)
    if value > UINT_MAX:
        raise ValueError("this uint is beyond 64 bits")
    return Uint(value)


def float_value(text: str) -> float:
    """A double. Raises `ValueError` for one too large."""
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError("this double is too large")
    return value


def string_value(text: str) -> str:
    """A string literal with its quotes and prefix. Raises `ValueError` for a bad escape."""
    raw = text[0] in "rR"
    body = _body(text[1:] if raw else text)
    return body if raw else _ESCAPE.sub(_as_text, body)


def bytes_value(text: str) -> bytes:
    r"""A bytes literal: `\xNN` and `\ooo` are bytes, all else is UTF-8. Raises `ValueError` for a bad escape."""
    raw = text[1] in "rR"
    body = _body(text[2:] if raw else text[1:])
    if raw:
        return body.encode()
    parts, end = [], 0
    for found in _ESCAPE.finditer(body):
        parts += [body[end : found.start()].encode(), _as_bytes(found)]
        end = found.end()
    return b"".join([*parts, body[end:].encode()])


def _body(text: str) -> str:
    quotes = 3 if len(text) >= 6 and text[:3] in ('"""', "'''") else 1
    body = text[quotes:-quotes]
    return body.replace("\r\n", "\n").replace("\r", "\n") if quotes == 3 else body


def _as_text(found: re.Match[str]) -> str:
    return chr(_code(found))


def _as_bytes(found: re.Match[str]) -> bytes:
    if found["point"]:
        raise ValueError(f"\\{found['point'][0]} is no escape of bytes: write \\xNN")
    return bytes([_code(found)])


def _code(found: re.Match[str]) -> int:
    if found["byte"]:
        text = found["byte"]
        return int(text[1:], 16) if text[0] in "xX" else int(text, 8)
    if found["point"]:
        code = int(found["point"][1:], 16)
        if code > 0x10FFFF or 0xD800 <= code <= 0xDFFF:
            raise ValueError(f"\\{found['point']} is no Unicode character")
        return code
    if found["simple"]:
        return _SIMPLE[found["simple"]]
    raise ValueError(f"\\{found['bad']} is no escape: write \\\\ for a backslash, or a raw string r'…'")
