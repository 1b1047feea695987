"""A request on its way out: where it goes, and how it stands on the wire."""

from __future__ import annotations

import re
from dataclasses import dataclass

from multidict import CIMultiDict
from yarl import URL

from trunkline.core.http.dial import Origin
from trunkline.core.http.url import place_of

AT_ONCE = 2**20
"""Bytes of a body that are written at once; a larger one goes piece by piece."""

_BESIDE_FRAMING = {"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "trunkline"}
_FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_LENGTH_EXPECTED = frozenset({"POST", "PUT", "PATCH"})
_NOT_IN_LINE = re.compile(r"[^\x21-\x7e]")


class Target:
    """A URL that was checked. `own` says whether the connection's credentials may go there, `place` names it in messages."""

    __slots__ = ("_lines", "host", "origin", "own", "place", "url")

    def __init__(self, url: URL, *, own: bool) -> None:
        self.url = url
        self.host = url.host or ""
        self.origin = Origin(url.scheme == "https", url.raw_host or "", url.port or 0)
        self.own = own
        self.place = place_of(url)
        self._lines: dict[str, str] = {}

    def line(self, method: str) -> str:
        """The request line with `Host` (RFC 9112, section 3.2). Raises ValueError for what would break out of it."""
        found = self._lines.get(method)
        if found is None:
            path, host = self.url.raw_path_qs, self.url.host_port_subcomponent or ""
            if _NOT_IN_LINE.search(path) or _NOT_IN_LINE.search(host):
                raise ValueError("a request line takes printable ASCII only")
            found = self._lines[method] = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n"
        return found


@dataclass(slots=True)
class Outgoing:
    """One request: what is sent, within how many seconds, and whether redirects are followed. `headers` are checked."""

    method: str
    target: Target
    headers: CIMultiDict[str]
    content: bytes | None
    seconds: float
    follow: bool = False

    @property
    def name(self) -> str:
        """The request in messages."""
        return f"{self.method} {self.target.place}"

    @property
    def framed_by_us(self) -> bool:
        """Whether no header of the caller's speaks of framing or of the connection, and the body can be written at once."""
        content = self.content
        return (content is None or len(content) <= AT_ONCE) and _FRAMING.isdisjoint(map(str.lower, self.headers))

    def wire_bytes(self) -> bytes:
        """The request as it goes out. Raises ValueError for a URL that can't stand in a request line."""
        headers, content = self.headers, self.content
        lines = [self.target.line(self.method)]
        lines += [f"{name}: {value}\r\n" for name, value in _BESIDE_FRAMING.items() if name not in headers]
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        if content is None:
            # RFC 9110, section 8.6: methods that expect content say that there is none.
            lines.append("Content-Length: 0\r\n\r\n" if self.method in _LENGTH_EXPECTED else "\r\n")
            return "".join(lines).encode()
        if "Content-Type" not in headers:
            lines.append("Content-Type: application/octet-stream\r\n")
        lines.append(f"Content-Length: {len(content)}\r\n\r\n")
        return "".join(lines).encode() + content
