"""A registry for the time of one command: the schemas' topic is there, but no worker serves it now."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator

from trunkline.bus.accounting.registrytrail import RegistryTrail
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.registry.kafka_store import KafkaStore
from trunkline.registry.service import serve_registry

_TIMEOUT = 60.0


@contextlib.contextmanager
def serving_registry(kafka: KafkaSettings, names: Names) -> Iterator[str]:
    """Serves the registry's interface on the loopback address, from a thread of its own; yields the URL."""
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
        listener = await serve_registry(store)
        stack.push_async_callback(listener.stop)
        return listener.url

    try:
        yield asyncio.run_coroutine_threadsafe(begin(), loop).result(_TIMEOUT)
    finally:
        asyncio.run_coroutine_threadsafe(stack.aclose(), loop).result(_TIMEOUT)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(_TIMEOUT)
        loop.close()
