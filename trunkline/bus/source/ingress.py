"""The listener that push sources share: it reads requests within limits and hands them to the source of their path."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Protocol
from urllib.parse import unquote

from aiohttp import web

from trunkline.bus.memory import Shares
from trunkline.bus.source.answers import Answer, unavailable
from trunkline.core.contracts import PushSource, Request
from trunkline.core.log import get_logger
from trunkline.core.serving.bodies import (
    Bodies,
    LateBodyError,
    NoRoomError,
    Taken,
    TooLargeError,
    UnreadableBodyError,
    UnsupportedEncodingError,
    read_body,
)
from trunkline.core.serving.fencing import answer_of, refusal_of
from trunkline.core.serving.listener import Listener

log = get_logger(__name__)
Path = tuple[str, ...]


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

    def __init__(self, listener: Listener) -> None:
        self.bodies = Bodies(Shares().bodies)
        self._listener = listener
        self._named = replace(listener.fence, any_host=False)
        self._sources: dict[Path, Receiver] = {}
        self._resting: dict[Path, str] = {}
        """The pipelines that don't run now and will again, by their paths."""

    @property
    def url(self) -> str:
        """Where it listens; empty before it does."""
        return self._listener.url

    async def add(self, receiver: Receiver) -> None:
        """Serves the path of a push source. Raises `UnavailableError` when the port is taken."""
        await self._listener.start(web.ServerRunner(web.Server(self._handle)))
        self.forget(receiver.pipeline)  # it may have had another path
        self._sources[_path(receiver.source.path)] = receiver

    def remove(self, receiver: Receiver) -> None:
        """Serves it no more until it is added again: senders are told to come again, since a 404 would have them give up."""
        path = _path(receiver.source.path)
        if self._sources.get(path) is receiver:
            del self._sources[path]
            self._resting[path] = receiver.pipeline

    def forget(self, pipeline: str) -> None:
        """A pipeline that does not run is not to run any more: 404 from now on."""
        self._resting = {path: one for path, one in self._resting.items() if one != pipeline}

    async def stop(self) -> None:
        """Ends the listener; requests under way are answered first."""
        await self._listener.stop()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = _path(request.rel_url.raw_path)
        receiver = self._sources.get(path)
        if receiver is None and path in self._resting:
            return _response(unavailable("the source is not running"))
        if receiver is None:
            return _response(Answer(404, b'{"error":"no source has this path"}'))
        refused = refusal_of(request, self._named) if receiver.source.anonymous else None
        if refused is not None:
            return answer_of(request, refused)
        taken = Taken(self.bodies)
        try:
            return await self._received(request, receiver, taken)
        finally:
            taken.give_back()

    async def _received(self, request: web.BaseRequest, receiver: Receiver, taken: Taken) -> web.StreamResponse:
        limit = receiver.source.max_body
        try:
            body = await read_body(request, limit, taken)
        except NoRoomError:
            return _response(unavailable("too many requests wait for the broker"), close=True)
        except LateBodyError:
            return _response(Answer(408, b'{"error":"the body did not arrive in time"}'), close=True)
        except UnsupportedEncodingError:
            return _response(Answer(415, b'{"error":"the body may be plain, gzip or deflate"}'), close=True)
        except UnreadableBodyError:
            return _response(Answer(400, b'{"error":"the body can not be read"}'), close=True)
        except TooLargeError:
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


def _path(raw: str) -> Path:
    """The segments of a path. An escaped slash belongs to its segment (RFC 3986, section 2.2): it leads nowhere else."""
    segments = raw.split("/")
    return tuple(map(unquote, segments) if "%" in raw else segments)


def _response(answer: Answer, *, close: bool = False) -> web.Response:
    response = web.Response(
        status=answer.status, body=answer.body, headers=dict(answer.headers or {}), content_type=answer.content_type
    )
    if close:
        response.force_close()
    return response
