"""The listener that push sources share: it reads requests within limits and hands them to the source of their path."""

from __future__ import annotations

import asyncio
import zlib
from typing import Protocol

from aiohttp import web

from trunkline.bus.memory import Shares
from trunkline.bus.source.answers import Answer, unavailable
from trunkline.bus.source.listen import Ports, listen
from trunkline.core.contracts import PushSource, Request
from trunkline.core.errors import UnavailableError
from trunkline.core.log import get_logger

log = get_logger(__name__)
BODY_SECONDS = 10.0


class Receiver(Protocol):
    """Who answers the requests to one path."""

    @property
    def pipeline(self) -> str:
        """The pipeline that it is."""

    @property
    def source(self) -> PushSource:
        """The plug-in, for its path and its limits."""

    async def receive(self, request: Request) -> Answer:
        """Judges a request, publishes what it brings, and says what the sender is answered."""


class Ingress:
    """One HTTP listener a worker. It listens from the first source on; sources come and go by themselves."""

    def __init__(self, address: tuple[str, int], ports: Ports) -> None:
        self._address = address
        self.bodies = Bodies(Shares().bodies)
        self._ports = ports
        self._sources: dict[str, Receiver] = {}
        self._resting: dict[str, str] = {}
        """The pipelines that don't run now and will again, by their paths."""
        self._runner: web.ServerRunner | None = None
        self.url = ""

    async def add(self, receiver: Receiver) -> None:
        """Serves the path of a push source. Raises `UnavailableError` when the port is taken."""
        await self._listen()
        self.forget(receiver.pipeline)  # it may have had another path
        self._sources[receiver.source.path] = receiver

    def remove(self, receiver: Receiver) -> None:
        """Serves it no more until it is added again: senders are told to come again, since a 404 would have them give up."""
        if self._sources.get(receiver.source.path) is receiver:
            del self._sources[receiver.source.path]
            self._resting[receiver.source.path] = receiver.pipeline

    def forget(self, pipeline: str) -> None:
        """A pipeline that does not run is not to run any more: 404 from now on."""
        self._resting = {path: one for path, one in self._resting.items() if one != pipeline}

    async def _listen(self) -> None:
        if self._runner is not None:
            return
        server = web.Server(
            self._handle, access_log=None, auto_decompress=False, keepalive_timeout=30, lingering_time=1
        )
        runner = web.ServerRunner(server)
        await runner.setup()
        try:
            self.url = await listen(
                runner, self._address, self._ports, "ingress", "choose another with --ingress or TRUNKLINE_INGRESS"
            )
        except UnavailableError:
            await runner.cleanup()
            raise
        self._runner = runner

    async def stop(self) -> None:
        """Ends the listener; requests under way are answered first."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        receiver = self._sources.get(request.path)
        if receiver is None and request.path in self._resting:
            return _response(unavailable("the source is not running"))
        if receiver is None:
            return _response(Answer(404, b'{"error":"no source has this path"}'))
        taken = Taken(self.bodies)
        try:
            return await self._received(request, receiver, taken)
        finally:
            taken.give_back()

    async def _received(self, request: web.BaseRequest, receiver: Receiver, taken: Taken) -> web.StreamResponse:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _read(request, receiver.source.max_body, taken)
        except NoRoomError:
            return _response(unavailable("too many requests wait for the broker"), close=True)
        except TimeoutError:
            return _response(Answer(408, b'{"error":"the body did not arrive in time"}'), close=True)
        except UnsupportedEncodingError:
            return _response(Answer(415, b'{"error":"the body may be plain, gzip or deflate"}'), close=True)
        except ValueError:
            return _response(Answer(400, b'{"error":"the body can not be read"}'), close=True)
        if body is None:
            limit = receiver.source.max_body
            return _response(Answer(413, b'{"error":"the body is larger than %d bytes"}' % limit), close=True)
        found = Request(
            method=request.method,
            path=request.path,
            query=dict(request.query),
            headers={name.lower(): value for name, value in request.headers.items()},
            body=body,
            remote=request.remote or "",
        )
        try:
            return _response(await receiver.receive(found))
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a request could not be judged", path=request.path)
            return _response(unavailable("the request could not be processed"))


class UnsupportedEncodingError(Exception):
    """The body is encoded in a way that is not taken."""


class NoRoomError(Exception):
    """The bodies of all requests are as large together as they may be."""


class Bodies:
    """How many bytes of bodies the worker holds, and may hold."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0


class Taken:
    """What one request has of them, until it is answered."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._size = 0

    def take(self, size: int) -> None:
        """Counts another part of the body. Raises NoRoomError; then the part is not counted."""
        if self._bodies.held + size > self._bodies.most:
            raise NoRoomError
        self._bodies.held += size
        self._size += size

    def give_back(self) -> None:
        """The request is answered."""
        self._bodies.held -= self._size
        self._size = 0


async def _read(request: web.BaseRequest, limit: int, taken: Taken) -> bytes | None:
    """The body, decompressed; None as soon as it is larger than `limit`. Raises ValueError for a broken encoding,
    and NoRoomError where the requests of all senders together are more than the worker may hold.
    """
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"identity", "gzip", "x-gzip", "deflate"}:
        raise UnsupportedEncodingError
    if request.content_length is not None and request.content_length > limit:
        return None
    # 47: zlib finds out by itself whether the header is gzip's or zlib's (RFC 9110, section 8.4.1).
    inflate = None if encoding == "identity" else zlib.decompressobj(47)
    parts, size = [], 0
    try:
        async for chunk in request.content.iter_any():
            part = chunk if inflate is None else inflate.decompress(chunk, limit - size + 1)
            size += len(part)
            if size > limit or (inflate is not None and inflate.unconsumed_tail):
                return None
            # I27: bodies are bounded for all senders together: who comes when there is no room is told to come again.
            taken.take(len(part))
            parts.append(part)
    except (web.RequestPayloadError, ConnectionError, zlib.error) as error:
        raise ValueError(str(error)) from error
    if inflate is not None and not inflate.eof and size:
        raise ValueError("the compressed body is cut off")
    return b"".join(parts)


def _response(answer: Answer, *, close: bool = False) -> web.Response:
    response = web.Response(
        status=answer.status, body=answer.body, headers=dict(answer.headers or {}), content_type=answer.content_type
    )
    if close:
        response.force_close()
    return response
