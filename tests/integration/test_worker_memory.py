"""A worker whose sinks stand still, before a topic with more than it may hold: it stays within its memory."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web
from bus_harness import http_connection, http_sink, topic_manifest
from conftest import KafkaUnderTest

from trunkline.bus.kafka import KafkaSettings, produce
from trunkline.bus.names import Names
from trunkline.bus.topics import TopicPlan, ensure_topics
from trunkline.registry.codec import Encoder
from trunkline.registry.schema import Schema

pytestmark = pytest.mark.kafka
NOTE = {"type": "record", "name": "Note", "fields": [{"name": "text", "type": "string"}]}
MEMORY = 256
SINKS = 4
RECORDS = 600
NOTE_BYTES = 64 * 1024


async def test_sinks_that_stand_still_before_a_full_topic_stay_within_the_workers_memory(
    kafka: KafkaUnderTest, namespace: str, tmp_path: Path
) -> None:
    names, topic = Names(namespace), f"{namespace}.notes"
    await asyncio.to_thread(_fill, KafkaSettings(kafka.bootstrap), topic)
    never = asyncio.Event()

    async def stand_still(_request: web.BaseRequest) -> web.StreamResponse:
        await never.wait()
        return web.Response()

    runner = web.ServerRunner(web.Server(stand_still, access_log=None), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=512).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    manifests = tmp_path / "notes.yaml"
    sinks = [http_sink(f"still-{number}", topic, connection="peer") for number in range(SINKS)]
    manifests.write_text(topic_manifest(topic, 4, schema=NOTE) + http_connection("peer", url) + "".join(sinks))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRUNKLINE_")}
    options = ["--home", str(tmp_path / "home"), "--bootstrap", kafka.bootstrap, "--namespace", names.namespace]
    with (tmp_path / "log.txt").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "trunkline.cli.main", *options, "run", "-f", str(manifests), "--memory", f"{MEMORY}MiB"),
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            await _until(Standstill(tmp_path / "home"), lambda: (tmp_path / "log.txt").read_text()[-4000:])
            peak = int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process.pid}/status").read_text())[1]) // 1024  # type: ignore[index]
            assert peak <= MEMORY, f"{peak} MiB"
        finally:
            process.send_signal(signal.SIGKILL)
            await process.wait()
            never.set()
            await runner.cleanup()


def _fill(settings: KafkaSettings, topic: str) -> None:
    ensure_topics(settings, [TopicPlan(topic, 4)])
    encoder, producer = Encoder(Schema(NOTE, id=1)), settings.producer()
    for number in range(RECORDS):
        produce(producer, topic, encoder.encode({"text": secrets.token_hex(NOTE_BYTES // 2)}), b"%d" % number, [])
    assert producer.flush(100) == 0


class Standstill:
    """Whether every sink holds so much that it reads no more: what is held stays the same while the topic has more."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._before: list[float] = []

    def __call__(self) -> bool:
        try:
            api = json.loads((self._home / "endpoint.json").read_text())["api"]
            with urllib.request.urlopen(f"{api}/metrics", timeout=30) as answer:
                text = answer.read().decode()
        except (OSError, ValueError):
            return False
        held = [
            float(one) for one in re.findall(r'^trunkline_held_bytes\{pipeline="still-\d"\} (\S+)$', text, re.MULTILINE)
        ]
        before, self._before = self._before, held
        return len(held) == SINKS and min(held) > 2**20 and held == before


async def _until(holds: Callable[[], bool], said: Callable[[], str]) -> None:
    try:
        async with asyncio.timeout(240):
            while not await asyncio.to_thread(holds):
                await asyncio.sleep(1)  # two looks in a row must find the same
    except TimeoutError:
        raise AssertionError(said()) from None
