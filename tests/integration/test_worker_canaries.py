"""A worker among peers that tell every secret: none stands in its log, on any topic, in status or metrics, in command lines or files."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import logging
import secrets
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog
from bus_harness import Bus, bus, order, topic_manifest
from conftest import KafkaUnderTest
from prometheus_client import generate_latest

from tests.conformance.canary_cases import CANARY, CASES
from tests.conformance.canary_peers import FAULTS, Peer, serving
from tests.unit.core.encodings_of_secrets import remains
from trunkline.bus.kafka import read_all
from trunkline.core.log import configure_logging

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def log() -> Iterator[io.StringIO]:
    """The log of a worker that was told to log everything."""
    root, found, stderr = logging.getLogger(), io.StringIO(), sys.stderr
    handlers, level = root.handlers[:], root.level
    sys.stderr = found
    try:
        configure_logging("debug", style="json")
    finally:
        sys.stderr = stderr
    yield found
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest_asyncio.fixture(loop_scope="module")
async def among_peers(kafka: KafkaUnderTest, tmp_path: Path) -> AsyncIterator[Bus]:
    async with bus(kafka.bootstrap, tmp_path / "home") as made:
        yield made


def _manifests(topic: str, name: str, case: Any, url: str, variable: str) -> str:
    """A pipeline of the case and its connection, with a variable of its own."""
    config, connection = json.loads(json.dumps(case.made(url)).replace(CANARY, f"${{env:{variable}}}"))
    head: dict[str, Any] = {"apiVersion": "trunkline/v1", "metadata": {"name": name}}
    spec: dict[str, Any] = {"connector": case.connector, "connection": f"{name}-peer", "config": config}
    if case.kind == "sink":
        retry = {"retry": {"attempts": 2, "min_delay": "20ms", "max_delay": "100ms"}}
        spec |= {"from": topic, "start": "earliest", "delivery": retry}
    else:
        spec |= {"to": {"topic": topic}}
    account = {"connector": case.connector, "config": connection}
    made = [
        {**head, "kind": case.kind.capitalize(), "spec": spec},
        {**head, "kind": "Connection", "metadata": {"name": f"{name}-peer"}, "spec": account},
    ]
    return "".join(f"---\n{json.dumps(one)}\n" for one in made)


async def test_no_secret_leaves_a_worker_by_any_way(
    among_peers: Bus, log: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    running, told, names, topic = among_peers, list[str](), list[str](), among_peers.name("orders")
    text = topic_manifest(topic)
    async with AsyncExitStack() as peers:
        for number, (case, fault) in enumerate(zip(CASES.values(), itertools.cycle(FAULTS), strict=False)):
            issued = f"issued-{secrets.token_urlsafe(24)}" if case.tokens else None
            peer = await peers.enter_async_context(serving(Peer(fault, [], issued)))
            secret = case.secret(secrets.token_urlsafe(18), peer.url)
            peer.secrets.append(secret)
            monkeypatch.setenv(f"CANARY_{number}", secret)
            told += [secret, *([issued] if issued is not None else [])]
            names.append(f"canary-{number}")
            text += _manifests(topic, names[-1], case, peer.url, f"CANARY_{number}")
        await running.start(text)
        await running.send_orders(topic, [order(number, f"c{number}") for number in range(4)])
        await running.until(lambda: all(map(_has_met_its_peer, map(running.report, names))), "each has met its peer")
        assert running.worker is not None
        metrics = generate_latest().decode()
        status = "\n".join(map(str, running.worker.reports))
        await running.stop()
    shown = {
        "log": log.getvalue(),
        "status": status,
        "metrics": metrics,
        "topics": await asyncio.to_thread(_topics, running),
        "command lines": _command_lines(),
        "files": _files_that_others_can_read(running.home),
    }
    assert all(shown[name] for name in ("log", "status", "metrics", "topics"))
    for place, found in shown.items():
        for secret in told:
            left = remains(secret, found)
            assert not left, f"{place}: {left[0]!r} in {found[max(0, found.index(left[0]) - 300) :][:400]}"


def _has_met_its_peer(report: Any) -> bool:
    return report.cause is not None or sum(report.counts.values()) > 0


def _topics(running: Bus) -> str:
    """Every record of the namespace: keys, values and headers."""
    found = running.settings.admin().list_topics(timeout=30).topics
    return "\n".join(
        str((message.key(), (message.value() or b"").decode("utf-8", "replace"), message.headers()))
        for topic in found
        if topic.startswith(running.names.namespace)
        for message in read_all(running.settings, topic, patient=False)
    )


def _command_lines() -> str:
    lines = []
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            lines.append(process.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return "\n".join(lines)


def _files_that_others_can_read(home: Path) -> str:
    others = stat.S_IRWXG | stat.S_IRWXO
    files = [file for file in home.rglob("*") if file.is_file() and file.stat().st_mode & others]
    return "\n".join(file.read_bytes().decode("utf-8", "replace") for file in files)
