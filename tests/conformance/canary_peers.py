"""Other systems that give everything away: whatever they are asked, they answer with the secrets that they know and were sent."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from socket import SO_LINGER, SOL_SOCKET

from tests.unit.core.encodings_of_secrets import ENCODINGS

LINE = 4096
"""Characters of a header that a peer sends at most."""


@dataclass
class Peer:
    """A server on loopback that answers by one fault. `secrets` are those that it tells; `tokens` it has issued, where it issues any."""

    fault: str
    secrets: list[str]
    issues: str | None = None
    """The token that it answers requests for one with, before the fault; None where those meet the fault too."""
    port: int = 0
    requests: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """Its address; one of TLS where the fault is that it speaks none."""
        return f"http{'s' if self.fault == 'no TLS' else ''}://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answers the requests of a connection."""
        try:
            while request := await _request(reader):
                self.requests.append(request)
                if self.issues is not None and b"token" in request.split(b"\r\n", 1)[0]:
                    writer.write(_answer(200, _token(self.issues), media="application/json"))
                elif self.fault == "reset":
                    # Ends the connection by a reset, with half of an answer on its way.
                    writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                    return
                else:
                    writer.write(FAULTS[self.fault](self.told(request)))
                    if self.fault in _ENDING:
                        return
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            pass
        finally:
            writer.close()

    def told(self, request: bytes) -> Sequence[str]:
        """The secrets in all encodings, and the request itself in some of them."""
        text = request.decode("utf-8", "replace")
        known = [*self.secrets, *([self.issues] if self.issues is not None else [])]
        return [encode(secret) for secret in known for encode in ENCODINGS.values()] + [
            text,
            json.dumps(text),
            repr(request),
        ]


async def _request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    return head + await reader.readexactly(length)


def _token(token: str) -> str:
    return json.dumps(
        {"access_token": token, "token_type": "Bearer", "expires_in": 3600, "refresh_token": f"{token}-again"}
    )


def _answer(status: int, body: str, *, media: str = "text/plain", reason: str = "Told", headers: str = "") -> bytes:
    content = body.encode("utf-8", "replace")
    head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: {media}\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
    return head.encode("utf-8", "replace") + content


def _line(told: Sequence[str]) -> str:
    """What is told, as one line of a header."""
    return " ".join(" ".join(told).split())[:LINE]


def _fields(told: Sequence[str]) -> Mapping[str, object]:
    """An object in which whatever a client may look for is told."""
    text = told[0]
    names = (
        "error",
        "error_description",
        "errorCode",
        "message",
        "statusCode",
        "status",
        "detail",
        "id",
        "access_token",
    )
    more = {
        "needed": text,
        "response_metadata": {"messages": list(told[:5])},
        "errors": [{"statusCode": text, "message": text}],
    }
    return {**dict.fromkeys(names, text), **more, "ok": False, "success": False, "items": text}


FAULTS: Mapping[str, Callable[[Sequence[str]], bytes]] = {
    "401": lambda told: _answer(401, "\n".join(told), headers=f"WWW-Authenticate: Bearer {_line(told)}\r\n"),
    "500": lambda told: _answer(500, "\n".join(told), reason=_line(told)),
    "500 in JSON": lambda told: _answer(500, json.dumps(_fields(told)), media="application/json"),
    "400 in JSON": lambda told: _answer(400, json.dumps([_fields(told)]), media="application/json"),
    "403 in JSON": lambda told: _answer(403, json.dumps(_fields(told)), media="application/json"),
    "429": lambda told: _answer(429, "\n".join(told), headers=f"Retry-After: {_line(told)}\r\n"),
    "200 with a refusal": lambda told: _answer(200, json.dumps(_fields(told)), media="application/json"),
    "200 with a page": lambda told: _answer(200, "\n".join(told), headers=f"Location: /{_line(told)}\r\n"),
    "no HTTP": lambda told: f"HTTP/1.1 {_line(told)}\r\n{_line(told)}\r\n\r\n".encode("utf-8", "replace"),
    "half an answer": lambda told: _answer(500, "\n".join(told))[:-100],
    "redirect": lambda told: _answer(302, "", headers=f"Location: http://127.0.0.1:1/{_line(told[:3])}\r\n"),
    "redirect to nowhere": lambda told: _answer(307, "", headers=f"Location: ftp://{_line(told[:3])}@[\r\n"),
    "no TLS": lambda told: _answer(400, "\n".join(told)),
    "reset": lambda told: b"",
}
"""What a peer answers with, of what it tells."""
_ENDING = frozenset({"no HTTP", "half an answer", "no TLS"})


@asynccontextmanager
async def serving(peer: Peer) -> AsyncIterator[Peer]:
    """The peer at work."""
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0, limit=2**20)
    peer.port = server.sockets[0].getsockname()[1]
    try:
        yield peer
    finally:
        server.close()
        server.close_clients() if hasattr(server, "close_clients") else None
