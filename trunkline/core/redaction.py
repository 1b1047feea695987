"""The one place where secrets are taken out of text: logs, errors, causes, verdicts, dead letters, traces and answers pass it.

What was a secret once stays one for the life of the process. Text is searched for all of them at once, in time linear in the text
however many there are, and in every way in which they may be written (`trunkline.core.encodings`).

* A secret of six bytes or more is found anywhere, also within a word, and its beginning where somebody cut it.
* A shorter one is found where it stands alone, so that it blanks no ordinary words. One of a single sign is not looked for.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections.abc import Iterable, Mapping
from typing import Any

from trunkline.core.encodings import (
    ESCAPED,
    LARGEST,
    Folded,
    folded,
    likely_secrets,
    parts_of,
    pieces,
    spellings,
    written,
)

MARK = "********"
SHORT = 6
"""Bytes. Below it a secret is looked for where it stands alone."""
ISSUED = 256
"""Of tokens that are issued to us, at least as many are kept: an older one has expired."""
_CUT = 12
"""So many bytes as a secret begins with are its beginning, and no coincidence: other systems cut what they repeat."""
_BETWEEN = 8
"""The most bytes between two pieces of one secret: the end of a line, what base64 makes of it."""
_CODED = re.compile(rb"[A-Za-z0-9+/_-]{3,}={0,2}")
_DEEPEST = 8

_SIGN = re.compile(rb"[A-Za-z0-9+/_-]?={0,2}")

Kind = tuple[bool, bool]
"""Of what is looked for: whether it is a piece of a longer secret, and whether it is base64."""
_WHOLE: Kind = (False, False)
Span = tuple[int, int, Kind]
"""Beginning and end of what is blanked."""


class _Table:
    """Some secrets as they are written, found by their first six bytes."""

    def __init__(self, entries: Mapping[bytes, Kind]) -> None:
        import re2  # type: ignore[import-untyped]  # 20 ms, for who has secrets

        self.entries = entries
        self._by_prefix: dict[bytes, list[bytes]] = {}
        for entry in sorted(entries, key=len, reverse=True):
            self._by_prefix.setdefault(entry[:SHORT], []).append(entry)
        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.log_errors = False
        options.never_capture = True
        options.max_mem = 64 << 20
        self._prefix = re2.compile(b"|".join(map(re2.escape, self._by_prefix)), options)

    def find(self, data: bytes, found: list[Span]) -> None:
        at = 0
        while (match := self._prefix.search(data, at)) is not None:
            start = match.start()
            at = start + 1
            candidates = self._by_prefix[data[start : start + SHORT]]
            entry = next((one for one in candidates if data.startswith(one, start)), None)
            length = len(entry) if entry is not None else 0
            if entry is None:
                length, entry = max((_beginning(data, start, one), one) for one in candidates)
            if length:
                found.append((start, start + length, self.entries[entry]))


class _Known:
    """Secrets of six bytes and more. Adding one costs the logarithm of their number: tables of like size become one."""

    def __init__(self) -> None:
        self.tables: tuple[_Table, ...] = ()
        self._pending: dict[bytes, Kind] = {}
        self._lock = threading.Lock()

    def add(self, entries: Iterable[bytes], kind: Kind) -> None:
        with self._lock:
            self._pending.update((entry, kind) for entry in entries if len(entry) >= SHORT)

    def find(self, data: bytes, found: list[Span]) -> None:
        if self._pending:
            self._build()
        for table in self.tables:
            table.find(data, found)

    def _build(self) -> None:
        with self._lock:
            entries, self._pending = self._pending, {}
            tables = list(self.tables)
            while tables and len(tables[-1].entries) <= 2 * len(entries):
                entries = {**tables.pop().entries, **entries}
            if entries:
                self.tables = (*tables, _Table(entries))


class _Generation:
    """What was learned together: as it is written, and folded."""

    def __init__(self) -> None:
        self.count = 0
        self.plain = _Known()
        self.unescaped = _Known()

    def learn(self, text: str, piece: bool) -> None:
        self.count += 1
        plain, coded = written(text)
        for forms, kind in ((coded, (piece, True)), (plain, (piece, False))):
            self.plain.add(forms, kind)
            self.unescaped.add(map(folded, forms), kind)


class Redactor:
    """Secrets, and text without them. May be used from any thread."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._lasting = _Generation()
        self._issued = [_Generation(), _Generation()]
        self._short: dict[bytes, None] = {}
        self._short_pattern: re.Pattern[bytes] | None = None
        self._lock = threading.Lock()
        self._empty = True

    def learn(self, value: str, *, issued: bool = False) -> None:
        """Blanks `value` from now on, and what of it is a secret by itself. An `issued` one is forgotten after many others."""
        with self._lock:
            if not issued and value in self._seen:
                return
            if issued and self._issued[-1].count >= ISSUED:
                self._issued = [self._issued[-1], _Generation()]
            generation = self._issued[-1] if issued else self._lasting
            for secret in dict.fromkeys((value, *parts_of(value))):
                parts = pieces(secret)
                for part in parts:
                    if len(folded(part.encode("utf-8", "surrogatepass"))) >= SHORT:
                        generation.learn(part, len(parts) > 1)
                    elif len(part) > 1:
                        self._learn_short(part)
            self._empty = False
            if not issued:
                self._seen.add(value)

    def _learn_short(self, text: str) -> None:
        self._short.update((one.encode("utf-8", "surrogatepass"), None) for one in spellings(text) if one.strip())
        longest_first = sorted(self._short, key=len, reverse=True)
        self._short_pattern = re.compile(b"|".join(map(_alone, longest_first)))

    def redact(self, text: str) -> str:
        """`text` with asterisks for every secret; the same object where there is none in it."""
        if self._empty or not text:
            return text
        data = text.encode("utf-8", "surrogatepass")
        found: list[Span] = []
        generations = (self._lasting, *(one for one in self._issued if one.count))
        for one in generations:
            one.plain.find(data, found)
        escaped = ESCAPED.search(data) is not None
        if escaped:
            unescaped, hits = Folded(data), list[Span]()
            for one in generations:
                one.unescaped.find(unescaped.data, hits)
            found += [(*unescaped.source(start, end), kind) for start, end, kind in hits]
        if self._short_pattern is not None:
            self._find_short(self._short_pattern, data, found)
            if escaped:
                unescaped = Folded(data, blanks=True)
                matches = self._short_pattern.finditer(unescaped.data)
                found += [(*unescaped.source(*match.span()), _WHOLE) for match in matches]
        return _blanked(data, found) if found else text

    def _find_short(self, pattern: re.Pattern[bytes], data: bytes, found: list[Span]) -> None:
        found += [(*match.span(), _WHOLE) for match in pattern.finditer(data)]
        for match in _CODED.finditer(data):
            decoded = _decoded(match.group())
            if decoded is not None and pattern.search(decoded):
                found.append((*match.span(), _WHOLE))


def _beginning(data: bytes, start: int, secret: bytes) -> int:
    """How many bytes a secret and a text have in common from here on; 0 where so few may be by chance, as those of an address."""
    if b"://" in secret[:_CUT] or not data.startswith(secret[:_CUT], start):
        return 0
    least, most = _CUT, min(len(secret), len(data) - start)
    while least < most:
        middle = (least + most + 1) // 2
        least, most = (middle, most) if data.startswith(secret[:middle], start) else (least, middle - 1)
    return least


def _with_neighbours(data: bytes, start: int, end: int) -> tuple[int, int]:
    """What of base64 is blanked: the sign at either side too, which has some bits of the secret's first or last byte."""
    before = start - 1 if start and _SIGN.fullmatch(data, start - 1, start) else start
    after = _SIGN.match(data, end)
    return before, after.end() if after is not None else end


def _alone(secret: bytes) -> bytes:
    """A pattern for a short secret that is no part of a word; where it is all of punctuation, of no other either."""
    if re.search(rb"[A-Za-z0-9\x80-\xff]", secret) is None:
        return rb"(?<![^\s'\"=:,])" + re.escape(secret) + rb"(?![^\s'\",;])"
    before = rb"(?<![A-Za-z0-9\x80-\xff])" if secret[:1].isalnum() or secret[0] >= 0x80 else b""
    after = rb"(?![A-Za-z0-9\x80-\xff])" if secret[-1:].isalnum() or secret[-1] >= 0x80 else b""
    return before + re.escape(secret) + after


def _decoded(coded: bytes) -> bytes | None:
    """What base64 says, where that is text."""
    plain = coded.rstrip(b"=").replace(b"-", b"+").replace(b"_", b"/")
    if len(plain) % 4 == 1:
        return None
    try:
        data = base64.b64decode(plain + b"=" * (-len(plain) % 4))
        return data if "".join(data.decode().split()).isprintable() else None
    except (binascii.Error, UnicodeDecodeError):
        return None


def _blanked(data: bytes, found: Iterable[Span]) -> str:
    wide = [
        (*(_with_neighbours(data, start, end) if coded else (start, end)), piece)
        for start, end, (piece, coded) in found
    ]
    spans: list[tuple[int, int, bool]] = []
    for start, end, piece in sorted(wide):
        if spans:
            first, last, before = spans[-1]
            if start < last or (piece and before and start - last <= _BETWEEN):
                spans[-1] = (first, max(last, end), piece and before)
                continue
        spans.append((start, end, piece))
    parts, at = [], 0
    for start, end, _ in spans:
        parts += [data[at:start], MARK.encode()]
        at = end
    return b"".join([*parts, data[at:]]).decode("utf-8", "replace")


_REDACTOR = Redactor()


def learn(value: str, *, issued: bool = False) -> None:
    """Takes `value` for a secret from now on, in this process. `issued`: one that was issued to us and expires, such as a token."""
    if value:
        _REDACTOR.learn(value, issued=issued)


def learn_parts(value: str) -> None:
    """Takes what in an address is most likely a secret for one: its password, and long parts of its path without a meaning."""
    for part in likely_secrets(value):
        learn(part)


redact = _REDACTOR.redact
"""`text` with asterisks for every secret of this process, in whatever way it is written there."""


def excerpt(text: str, length: int) -> str:
    """The beginning of `text`, redacted: cut first, it could end within a secret that nobody would know any more."""
    return redact(text[: length + LARGEST])[:length]


def redact_all(data: Any, depth: int = 0) -> Any:
    """Data with every text in it redacted, names included, and what is neither text, number nor container as its text."""
    if isinstance(data, str):
        return redact(data)
    if data is None or isinstance(data, (bool, int, float)):
        return data
    if depth < _DEEPEST and isinstance(data, Mapping):
        return {redact_all(name, depth + 1): redact_all(value, depth + 1) for name, value in data.items()}
    if depth < _DEEPEST and isinstance(data, (list, tuple, set, frozenset)):
        return [redact_all(one, depth + 1) for one in data]
    return redact(str(data))
