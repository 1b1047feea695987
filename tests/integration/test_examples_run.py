"""The examples that need nothing from outside, run as they stand; only topics and folders get names of the test's own."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from trunkline.bus.accounting.trace import find_hops
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.states import State
from trunkline.bus.worker.settings import WorkerSettings
from trunkline.bus.worker.worker import Worker
from trunkline.core.http import HttpClient, HttpOptions
from trunkline.core.manifests import load_files

if TYPE_CHECKING:
    from tests.conftest import KafkaUnderTest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SECRET = "shared-with-github"
PATIENCE = 180.0

pytestmark = [pytest.mark.kafka]


def copy_with(folder: Path, name: str, **replaced: str) -> Path:
    """The example's manifests with texts replaced, in a folder of the test's own."""
    target = folder / name
    target.mkdir()
    for file in (EXAMPLES / name).glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        for old, new in replaced.items():
            text = text.replace(old.replace("_", "."), new)
        (target / file.name).write_text(text, encoding="utf-8")
    return target


def test_the_quickstart_writes_every_order_to_a_file(kafka: KafkaUnderTest, tmp_path: Path, namespace: str) -> None:
    folder = copy_with(tmp_path, "quickstart", orders_placed=f"{namespace}.orders.placed")
    out = tmp_path / "out"
    command = [sys.executable, "-m", "trunkline.cli.main", "run", "-f", str(folder), "--until-finished"]
    command += ["--home", str(tmp_path / "home"), "--bootstrap", kafka.bootstrap, "--namespace", namespace]
    variables = {"ORDERS_OUT": str(out), "ORDERS_FILE": str(EXAMPLES / "quickstart" / "orders.csv")}

    done = subprocess.run(
        command, env={**os.environ, **variables}, capture_output=True, text=True, timeout=PATIENCE, check=False
    )

    assert done.returncode == 0, done.stderr
    orders = [json.loads(line) for file in out.glob("*.jsonl") for line in file.read_text().splitlines()]
    assert [order["order"] for order in orders] == [1001, 1002, 1003, 1004]


DELIVERIES = Path(__file__).parents[3] / "shared" / "data" / "github-webhooks.jsonl.gz"


class Target:
    """Keeps what the example sends on: path, kind header, correlation id and body."""

    def __init__(self) -> None:
        self.received: list[tuple[str, str, str, bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        headers = request.headers
        body = await request.read()
        self.received.append((request.path, headers["X-GitHub-Event"], headers["X-Correlation-ID"], body))
        return web.Response()


@pytest.fixture
async def target() -> AsyncIterator[Target]:
    target = Target()
    app = web.Application()
    app.router.add_post("/github/{kind}", target.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    target.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield target
    await runner.cleanup()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.05)


async def test_github_webhooks_are_passed_on_by_their_kind(
    kafka: KafkaUnderTest, target: Target, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("HOOKS_TARGET", target.url)
    folder = copy_with(tmp_path, "github-webhooks", **{"github_*": f"{namespace}.github.*"})
    worker = Worker(WorkerSettings(KafkaSettings(kafka.bootstrap), Names(namespace), tmp_path / "home"))
    client = HttpClient(HttpOptions(allow_private=["127.0.0.1"]))
    bodies = {"push": b'{"ref": "refs/heads/main"}', "star": b'{"action":"created"}', "ping": b'{"zen": "Keep it."}'}

    async def post(kind: str, body: bytes, secret: str = SECRET) -> int:
        proof = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-GitHub-Event": kind, "X-Hub-Signature-256": f"sha256={proof}", "X-Request-ID": f"from-{kind}"}
        headers["Content-Type"] = "application/json"
        while True:
            answer = await client.request("POST", f"{worker.ingress.url}/hooks/github", headers=headers, content=body)
            if answer.status not in {404, 503}:  # not served yet
                return answer.status
            await asyncio.sleep(0.1)

    try:
        await worker.start(load_files([folder]))
        await until(lambda: {one.state for one in worker.reports} == {State.RUNNING})
        async with asyncio.timeout(PATIENCE):
            assert [await post(kind, body) for kind, body in bodies.items()] == [202, 202, 202]
            assert await post("push", bodies["push"]) == 200
            assert await post("push", b'{"ref": "forged"}', secret="of somebody else") == 401
        await until(lambda: len(target.received) >= len(bodies))
    finally:
        await client.close()
        await worker.close()

    expected = [(f"/github/{kind}", kind, f"from-{kind}", body) for kind, body in bodies.items()]
    assert sorted(target.received) == sorted(expected)


@pytest.mark.timeout(400)
@pytest.mark.slow
async def test_every_real_delivery_of_github_arrives_once_at_its_kind_with_the_correlation_id_of_its_trace(
    kafka: KafkaUnderTest, target: Target, tmp_path: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not DELIVERIES.exists():
        pytest.skip(f"{DELIVERIES.name} is not beside the project")
    monkeypatch.setenv("GITHUB_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("HOOKS_TARGET", target.url)
    folder = copy_with(tmp_path, "github-webhooks", **{"github_*": f"{namespace}.github.*"})
    settings, names = KafkaSettings(kafka.bootstrap), Names(namespace)
    worker = Worker(WorkerSettings(settings, names, tmp_path / "home"))
    client = HttpClient(HttpOptions(allow_private=["127.0.0.1"], max_connections=8))
    with gzip.open(DELIVERIES, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    deliveries = [(line["event"], json.dumps(line["payload"]).encode()) for line in lines]
    assert len(deliveries) == 329

    async def post(kind: str, body: bytes, *, secret: str = SECRET) -> tuple[int, str]:
        proof = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-GitHub-Event": kind, "X-Hub-Signature-256": f"sha256={proof}", "Content-Type": "application/json"}
        url = f"{worker.ingress.url}/hooks/github"
        while (answer := await client.request("POST", url, headers=headers, content=body)).status == 503:
            await asyncio.sleep(0.1)  # nothing was accepted: a sender tries again
        return answer.status, answer.headers.get("X-Correlation-ID", "")

    expected: dict[str, tuple[str, bytes]] = {}
    bodies: set[bytes] = set()
    try:
        await worker.start(load_files([folder]))
        await until(lambda: {one.state for one in worker.reports} == {State.RUNNING} and bool(worker.ingress._sources))
        for kind, body in deliveries:
            status, correlation = await post(kind, body)
            assert status == (200 if body in bodies else 202), (kind, status)
            if status == 202:
                expected[correlation] = (kind, body)
            bodies.add(body)
        for kind, body in deliveries[::20]:
            assert (await post(kind, body))[0] == 200, "a repeated delivery makes no new event"
            assert (await post(kind, body, secret="of somebody else"))[0] == 401
        await until(lambda: len(target.received) >= len(expected))
        await until(lambda: next(one for one in worker.reports if one.kind == "Sink").counts["read"] >= len(expected))
    finally:
        await client.close()
        await worker.close()

    received = {correlation: (kind, body) for _path, kind, correlation, body in target.received}
    assert len(target.received) == len(expected), "each once"
    assert received == expected
    assert all(path == f"/github/{kind}" for path, kind, _, _ in target.received)
    for correlation in list(expected)[::40]:
        hops = await asyncio.to_thread(find_hops, settings, names.trace, correlation)
        assert [(hop.kind, hop.outcome) for hop in hops] == [("source", "delivered"), ("sink", "delivered")]
    topics = set(settings.admin().list_topics(timeout=10).topics)
    assert {f"{namespace}.github.{kind}" for kind, _ in expected.values()} <= topics
