"""What a worker's HTTP service answers besides health and status: metrics, and its log level."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder

from trunkline.bus.worker.worker import Worker
from trunkline.core.log import LEVELS, get_logger, set_level
from trunkline.core.serving.bodies import TooLargeError, UnreadableBodyError, UnsupportedEncodingError, read_body

log = get_logger(__name__)
MAX_BODY = 4096


def extend(app: web.Application, worker: Worker, *, measure: Callable[[], None] | None = None) -> None:
    """Adds `GET /metrics` (Prometheus text or OpenMetrics) and `PUT /logging` to a worker's service.

    `measure` sets, before metrics are given, those that nobody else in this process knows. It may block.
    """

    async def metrics(request: web.Request) -> web.Response:
        if measure is not None:
            await asyncio.to_thread(measure)
        await worker.measure()
        return await _metrics(request)

    app.router.add_get("/metrics", metrics)
    app.router.add_get("/logging", _level)
    app.router.add_put("/logging", _set_level)


async def _metrics(request: web.Request) -> web.Response:
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    # In a thread: the series of a thousand pipelines take a while to write down.
    return web.Response(body=await asyncio.to_thread(encode, REGISTRY), headers={"Content-Type": content_type})


async def _level(_request: web.Request) -> web.Response:
    return web.json_response({"level": logging.getLevelName(logging.getLogger().level).lower()})


async def _set_level(request: web.Request) -> web.Response:
    """`{"level": "debug"}`; 400 for anything else."""
    refusal = web.json_response({"error": f"level must be one of {', '.join(LEVELS)}"}, status=400)
    try:
        level = json.loads(await read_body(request, MAX_BODY))["level"]
        set_level(level)
    except (
        TooLargeError,
        UnreadableBodyError,
        UnsupportedEncodingError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
    ):
        return refusal
    log.warning("the log level was changed", level=level)
    return web.json_response({"level": level})
