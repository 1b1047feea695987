"""While the broker does not answer, the worker itself is asked how its pipelines stand."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path

import pytest
from bus_harness import bus, topic_manifest
from conftest import KafkaUnderTest
from typer.testing import CliRunner

from trunkline.bus.states import State
from trunkline.bus.worker.worker import Worker, WorkerSettings
from trunkline.cli.endpoint import Endpoint, write_endpoint
from trunkline.cli.main import app
from trunkline.control.api.worker import extend
from trunkline.core.manifests import load_text

pytestmark = pytest.mark.kafka


@pytest.mark.slow
async def test_status_asks_the_worker_while_the_broker_does_not_answer(kafka: KafkaUnderTest, tmp_path: Path) -> None:
    home = tmp_path / "home"
    async with bus(kafka.bootstrap, home) as running:
        settings = WorkerSettings(running.settings, running.names, home, registry_url=running.registry_url)
        running.worker = Worker(settings, extend_api=extend)
        topic = running.name("ticks")
        await running.worker.start(
            load_text(
                topic_manifest(topic, schema=None)
                + f"---\napiVersion: trunkline/v1\nkind: Source\nmetadata: {{name: clock}}\n"
                f"spec: {{connector: schedule, config: {{every: 1h}}, to: {topic}}}\n"
            )
        )
        await running.until(lambda: running.report("clock").state is State.RUNNING, "running")
        with socket.create_server(("127.0.0.1", 0)) as closed:
            away = f"127.0.0.1:{closed.getsockname()[1]}"
        write_endpoint(
            home, Endpoint(os.getpid(), away, running.names.namespace, running.worker.url, running.registry_url)
        )
        arguments = ["--bootstrap", away, "--namespace", running.names.namespace, "--home", str(home)]
        result = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "-o", "json", "status"])
        assert result.exit_code == 0, result.output
        assert [(one["pipeline"], one["state"]) for one in json.loads(result.stdout)] == [("clock", "RUNNING")]
        told = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "status"])
        assert away in told.stderr
        assert "this is what the worker at" in told.stderr
        unknown = await asyncio.to_thread(CliRunner().invoke, app, [*arguments, "status", "clok"])
        assert unknown.exit_code == 2
        assert "clock" in unknown.stderr
