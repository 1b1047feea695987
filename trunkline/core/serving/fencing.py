"""The fence in front of a server of aiohttp's: no handler sees a request that does not come through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import HttpVersion10, HttpVersion11, hdrs, web

from trunkline.core.access.fence import Fence, Refused
from trunkline.core.log import get_logger
from trunkline.core.serving.connections import Handler
from trunkline.core.serving.refusals import json_refusal

log = get_logger(__name__)


def fenced(handler: Handler, fence: Fence) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """`handler`, for what comes through the fence. Everything else is answered here, and its connection closed."""

    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        refused = refusal_of(request, fence)
        if refused is None:
            return await handler(request)
        return answer_of(request, refused)

    return handle


def answer_of(request: web.BaseRequest, refused: Refused) -> web.Response:
    """What a request that does not come through is answered."""
    log.info("a request was refused", status=refused.status, reason=refused.reason, remote=request.remote)
    response = json_refusal(refused.status, refused.reason)
    response.force_close()
    return response


def refusal_of(request: web.BaseRequest, fence: Fence) -> Refused | None:
    """Why a request does not come through, or None."""
    if request.version not in (HttpVersion10, HttpVersion11):
        return Refused(505, "HTTP/1.1 is spoken here")
    hosts = request.headers.getall(hdrs.HOST, [])
    if not hosts and request.version == HttpVersion11:
        return Refused(400, "the request names no host")
    target = request._message.url  # noqa: SLF001 (the public one is made whole with our own address)
    if target.absolute and target.authority not in hosts:
        hosts = [*hosts, target.authority]
    return fence.refusal(request.method, request.headers, hosts, body=request.body_exists, path=request.path)
