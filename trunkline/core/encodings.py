"""The ways in which a secret is written: escaped for JSON, Python, HTML or a URL, or in base64 with other bytes around it.

`folded` undoes escapes, however often they were applied, so that one comparison stands for all of them. What it gives is only for
comparing: blanks are gone, and what was escaped can't be told from what was not.
"""

from __future__ import annotations

import base64
import html
import json
import re
from bisect import bisect_right
from collections.abc import Iterator
from urllib.parse import quote, quote_plus, unquote, urlsplit

LARGEST = 64 * 1024
"""Bytes of a secret that are looked for: those at its beginning."""
_WHOLE = 96
"""Bytes. A longer secret, or one of several lines, is looked for in pieces: a line of a key is a secret too."""
_PIECE = 48
"""Divides by three, so that the pieces of a text begin alike in base64."""
_LEAST_PIECE = 8
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_KIND = re.compile(r"[A-Za-z]{2,10}[_-](?=.{12})")
"""How tokens begin that say what they are: `xoxb-`, `whsec_`. The rest alone is as good as the whole."""

ESCAPED = re.compile(rb"[\\%&\r\n\t]| {2}")
"""Where none of this is in a text, folding it changes nothing that matters."""
_ESCAPE = re.compile(
    rb"[\s+]+"
    rb"|((?:%(?:25)*[0-9A-Fa-f]{2})+)"
    rb"|((?:\\+x[0-9A-Fa-f]{2})+)"
    rb"|\\+(?:u([dD][89abAB][0-9A-Fa-f]{2})\\+u([dD][c-fC-F][0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})"
    rb"|([nrtfv])|(b)|)"
    rb"|&(?:amp;)*(?:#([0-9]{1,7})|#[xX]([0-9A-Fa-f]{1,6})|(quot|apos|lt|gt|amp));"
)
_ENTITIES = {b"quot": b'"', b"apos": b"'", b"lt": b"<", b"gt": b">", b"amp": b"&"}


_BYTE = re.compile(rb"(?:%(?:25)*|x)([0-9A-Fa-f]{2})")
_BLANKS = re.compile(rb"[\s+]+")


def _unescaped(found: re.Match[bytes]) -> bytes:
    percent, hexes, high, low, short, long, blank, backspace, decimal, hexadecimal, entity = found.groups()
    if percent is not None or hexes is not None:
        return _as_utf8(bytes(int(byte, 16) for byte in _BYTE.findall(percent or hexes)))
    if high is not None:
        return _utf8(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
    if short is not None or long is not None:
        return _utf8(int(short or long, 16))
    if backspace is not None:
        return b"\b"
    if decimal is not None or hexadecimal is not None:
        return _utf8(int(decimal) if decimal is not None else int(hexadecimal, 16))
    if entity is not None:
        return _ENTITIES[entity]
    # Blanks, plus signs, and backslashes before what they protect.
    return b" " if blank is not None or not found.group().startswith(b"\\") else b""


def _as_utf8(data: bytes) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1").encode()
    return data


def _utf8(point: int) -> bytes:
    return chr(point).encode("utf-8", "surrogatepass") if point <= 0x10FFFF else b""


def folded(data: bytes) -> bytes:
    """Without escapes, blanks and plus signs."""
    return _BLANKS.sub(b"", _ESCAPE.sub(_unescaped, data))


class Folded:
    """A folded text that knows where each of its bytes stood. With `blanks`, one is left of several."""

    def __init__(self, data: bytes, *, blanks: bool = False) -> None:
        parts: list[bytes] = []
        self._starts: list[int] = []
        self._sources: list[tuple[int, int | None]] = []
        """Where a part begins in the text; and where it ends, for one that was an escape."""
        at = last = 0

        def add(part: bytes, start: int, end: int | None) -> None:
            nonlocal at
            if part:
                parts.append(part)
                self._starts.append(at)
                self._sources.append((start, end))
                at += len(part)

        for found in _ESCAPE.finditer(data):
            add(data[last : found.start()], last, None)
            part = _unescaped(found)
            add(part if blanks else _BLANKS.sub(b"", part), *found.span())
            last = found.end()
        add(data[last:], last, None)
        self.data = b"".join(parts)

    def source(self, start: int, end: int) -> tuple[int, int]:
        """Where in the text these bytes of the folded one stood; an escape is taken whole."""
        index = bisect_right(self._starts, start) - 1
        begin, whole = self._sources[index]
        first = begin if whole is not None else begin + start - self._starts[index]
        index = bisect_right(self._starts, end - 1) - 1
        begin, whole = self._sources[index]
        return first, whole if whole is not None else begin + end - self._starts[index]


def pieces(value: str) -> list[str]:
    """What of a secret is looked for: itself where it is short and of one line, else pieces of it that together are all of it."""
    text = value.encode("utf-8", "surrogatepass")[:LARGEST].decode("utf-8", "ignore").strip()
    whole = [text] if len(text.encode("utf-8", "surrogatepass")) <= _WHOLE else []
    if whole and not re.search(r"[\r\n]", text):
        return whole
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if len(line) >= _LEAST_PIECE and not line.startswith("-----")]
    found = dict.fromkeys(whole)
    for line in lines or ([] if whole else [text]):
        if len(line) <= _WHOLE:
            found[line] = None
            continue
        cuts = range(0, len(line) - _PIECE + 1, _PIECE)
        found.update((line[cut : cut + _PIECE], None) for cut in (*cuts, len(line) - _PIECE))
    return list(found)


def parts_of(value: str) -> Iterator[str]:
    """What of a secret is a secret by itself: a token without its kind, and in an address what nobody can guess."""
    kind = _KIND.match(value)
    if kind is not None and not re.search(r"\s", value):
        yield value[kind.end() :]
    if not _URL.fullmatch(value.strip()):
        return
    try:
        url = urlsplit(value.strip())
        password = url.password
    except ValueError:
        return
    if password:
        yield unquote(password)
    rest = url.path + (f"?{url.query}" if url.query else "")
    if any(map(_unguessable, re.split(r"[/?&=@;]", rest))):
        yield rest
    for part in re.split(r"[/?&=@;]", rest):
        if _unguessable(part):
            yield unquote(part)


def likely_secrets(value: str) -> Iterator[str]:
    """What in an address that need not be a secret can hardly be anything else: a password, and long parts without a meaning."""
    yield from (part for part in parts_of(value) if len(part) >= 16 and "/" not in part and _random(part))
    password = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://[^/\s:@]*:([^/\s@]+)@", value)
    if password is not None:
        yield unquote(password.group(1))


def _unguessable(part: str) -> bool:
    return len(part) >= 20 or (len(part) >= 8 and _random(part))


def _random(part: str) -> bool:
    digits, letters = any(map(str.isdigit, part)), any(map(str.isalpha, part))
    return (digits and letters) or (any(map(str.isupper, part)) and any(map(str.islower, part)))


def spellings(text: str) -> set[str]:
    """How a text is written within others. Folding makes most of them one again; in base64 it can't."""
    inner = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], repr(text)[1:-1], html.escape(text)}
    blank = {text.replace(" ", "+"), " ".join(text.split())}
    quoted = set(_quoted(text))
    return {
        text,
        *inner,
        *blank,
        *quoted,
        *(quote(one, "", errors="replace") for one in quoted),
        quote(text, errors="replace"),
        quote(text, "", errors="replace"),
        quote_plus(text, errors="replace"),
    }


def _quoted(text: str) -> Iterator[str]:
    """How a text stands between quotes of its own kind: doubled in CSV, SQL and YAML, again in one within another; as a shell has it."""
    single, double = "'" in text, '"' in text
    for times in (2, 4) if single or double else ():
        if single:
            yield text.replace("'", "'" * times)
        if double:
            yield text.replace('"', '"' * times)
        if single and double:
            yield text.replace("'", "''").replace('"', '"' * times)
    if single:
        yield text.replace("'", "'\\''")
        yield text.replace("'", "'\"'\"'")


def written(text: str) -> tuple[set[bytes], set[bytes]]:
    """A text of at least six bytes as it may stand in others, apart from what folding undoes: in clear, and in base64."""
    plain = {spelling.encode("utf-8", "surrogatepass") for spelling in spellings(text)}
    if not text.isascii():
        raw = text.encode("utf-8", "surrogatepass")
        plain.add(raw.decode("latin-1").encode())  # headers are read as latin-1
        plain.update({text.encode("latin-1")} if all(ord(sign) < 256 for sign in text) else ())
    return plain, {coded for one in plain for coded in _in_base64(one)} - plain


def _in_base64(data: bytes) -> Iterator[bytes]:
    """What base64 makes of the bytes wherever they begin: the signs that depend on nothing else."""
    for before in range(3):
        whole = base64.b64encode(bytes(before) + data)
        bits = (before + len(data)) * 8
        kept = whole[-(-before * 8 // 6) : bits // 6]
        yield kept
        yield kept.replace(b"+", b"-").replace(b"/", b"_")
