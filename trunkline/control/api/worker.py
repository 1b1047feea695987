"""What a worker's HTTP service answers besides health and status: metrics, and its log level."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from urllib.parse import parse_qsl

from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.worker.principals import Principals
from trunkline.bus.worker.worker import Worker
from trunkline.core.access.directory import DeniedError
from trunkline.core.access.roles import Permission
from trunkline.core.access.rules import PUBLIC, Rule
from trunkline.core.access.tokens import LASTS
from trunkline.core.jsontext import read_json
from trunkline.core.log import LEVELS, current_level, get_logger, set_level
from trunkline.core.serving.bodies import BodyError, read_body
from trunkline.core.serving.doors import TOKEN_PATH
from trunkline.core.serving.guarding import add_route, asker

log = get_logger(__name__)
MAX_BODY = 4096


def extend(app: web.Application, worker: Worker, *, measure: Callable[[], None] | None = None) -> None:
    """Adds `GET /metrics` (Prometheus text or OpenMetrics), `PUT /logging` and `POST /v1/token` to a worker's service.

    `measure` sets, before metrics are given, those that nobody else in this process knows. It may block.
    """

    async def metrics(request: web.Request) -> web.Response:
        if measure is not None:
            await asyncio.to_thread(measure)
        await worker.measure()
        return await _metrics(request)

    async def token(request: web.Request) -> web.Response:
        return await _token(request, worker.principals)

    async def set_logging(request: web.Request) -> web.Response:
        return await _set_level(request, worker)

    open_metrics = worker.settings.doors.open_metrics
    add_route(app, "GET", "/metrics", metrics, PUBLIC if open_metrics else Rule(Permission.STATUS_READ))
    add_route(app, "GET", "/logging", _level, Rule(Permission.STATUS_READ))
    add_route(app, "PUT", "/logging", set_logging, Rule(Permission.LOG_LEVEL))
    add_route(app, "POST", TOKEN_PATH, token, PUBLIC)  # it judges its callers by itself: who asks has no token yet


async def _metrics(request: web.Request) -> web.Response:
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    # In a thread: the series of a thousand pipelines take a while to write down.
    return web.Response(body=await asyncio.to_thread(encode, REGISTRY), headers={"Content-Type": content_type})


async def _token(request: web.Request, principals: Principals) -> web.Response:
    """A token for a key: OAuth 2.0 client credentials (RFC 6749, section 4.4), the client's id being the principal's name."""
    try:
        asked = dict(parse_qsl((await read_body(request, MAX_BODY)).decode("ascii"), max_num_fields=10))
    except (BodyError, ValueError):
        return _no_token(400, "invalid_request")
    if asked.get("grant_type") != "client_credentials":
        return _no_token(400, "unsupported_grant_type")
    directory, address = principals.directory, request.remote or ""
    try:
        if "client_secret" in asked:
            caller = directory.by_key(asked["client_secret"], address, asked.get("client_id"))
        else:
            found = directory.sign_in(request.headers, address)
            if found is None:
                raise DeniedError(401, "no client signed in")
            caller = found
    except DeniedError as denied:
        log.info("a token was refused", reason=denied.reason, remote=address)
        return _no_token(401, "invalid_client")
    token = await asyncio.to_thread(principals.token, caller)
    answer = {"access_token": token, "token_type": "Bearer", "expires_in": int(LASTS)}
    return web.json_response(answer, headers={"Cache-Control": "no-store"})


def _no_token(status: int, error: str) -> web.Response:
    headers = {"Cache-Control": "no-store"} | ({"WWW-Authenticate": 'Basic realm="trunkline"'} if status == 401 else {})
    return web.json_response({"error": error}, status=status, headers=headers)


async def _level(_request: web.Request) -> web.Response:
    return web.json_response({"level": current_level()})


async def _set_level(request: web.Request, worker: Worker) -> web.Response:
    """`{"level": "debug"}`; 400 for anything else.

    `audited` says whether the audit trail has it. It is written later where Kafka is away: that is when a log is looked at.
    """
    refusal = web.json_response({"error": f"level must be one of {', '.join(LEVELS)}"}, status=400)
    try:
        level = read_json(await read_body(request, MAX_BODY))["level"]
        before = current_level()
        set_level(level)
    except (BodyError, ValueError, TypeError, KeyError, AttributeError):
        return refusal
    who = asker(request)
    log.warning("the log level was changed", to=level, by=who)
    details = {"before": before, "after": current_level()}
    entry = Entry(time.time(), who, "log.level", "", details, subject=f"worker {worker.id}")
    return web.json_response({"level": level, "audited": await worker.audit.tell(entry)})
