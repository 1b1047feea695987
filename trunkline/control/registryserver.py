"""A registry for the time of one command: the schemas' topic is there, but no worker serves it now."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Iterator

from aiohttp import web
from aiohttp.typedefs import Middleware

from trunkline.bus.accounting.registrytrail import RegistryTrail
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.core.access.principals import Caller, Principal
from trunkline.core.serving.guarding import CALLER, Handler
from trunkline.core.serving.listener import Listener
from trunkline.registry.kafka_store import KafkaStore
from trunkline.registry.service import registry_app

_TIMEOUT = 60.0


@contextlib.contextmanager
def serving_registry(kafka: KafkaSettings, names: Names, actor: str) -> Iterator[str]:
    """Serves the registry's interface on the loopback address, from a thread of its own; yields the URL.

    What is written is in the audit trail in the name of `actor`. The URL's path is known to who called this alone: other programs of
    this machine find nothing there.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="registry", daemon=True)
    thread.start()
    stack = contextlib.AsyncExitStack()

    async def begin() -> str:
        audited = [plan for plan in internal_topics(names) if plan.name == names.audit]
        await asyncio.to_thread(ensure_topics, kafka, audited)
        store = KafkaStore(kafka.for_others(), names.schemas, auditor=RegistryTrail(names))
        stack.push_async_callback(store.close)
        await store.start()
        path = f"/{secrets.token_urlsafe(24)}"
        app = web.Application(middlewares=[_in_the_name_of(actor)])
        app.add_subapp(path, registry_app(store))
        listener = Listener("registry", ("127.0.0.1", 0), "choose another address")
        stack.push_async_callback(listener.stop)
        await listener.start(web.AppRunner(app))
        return listener.url + path

    try:
        yield asyncio.run_coroutine_threadsafe(begin(), loop).result(_TIMEOUT)
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(_TIMEOUT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_TIMEOUT)
        loop.close()


def _in_the_name_of(actor: str) -> Middleware:
    caller = Caller(Principal(actor))

    @web.middleware
    async def named(request: web.Request, handler: Handler) -> web.StreamResponse:
        request[CALLER] = caller
        return await handler(request)

    return named
