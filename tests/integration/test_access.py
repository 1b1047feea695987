"""Who may do what at a worker: every route × role × way of signing in × object, from the routes themselves, on a real worker."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from bus_harness import Bus, bus, topic_manifest
from conftest import KafkaUnderTest
from typer.testing import CliRunner

from tests.certificates import issue
from trunkline.bus.worker.worker import Worker, WorkerSettings
from trunkline.cli.endpoint import Endpoint, write_endpoint
from trunkline.cli.main import app as command_line
from trunkline.control import keys
from trunkline.control.api.worker import extend
from trunkline.control.audit import entries
from trunkline.control.cluster import Cluster
from trunkline.core.access.roles import MAY, Permission, Role
from trunkline.core.access.rules import Rule
from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests import load_text
from trunkline.core.serving.doors import Doors
from trunkline.core.serving.guarding import rules_of
from trunkline.core.serving.tls import TlsFiles

pytestmark = pytest.mark.kafka
OWN, FOREIGN = "orders-value", "salaries-value"
SCHEMA = {"Content-Type": "application/vnd.schemaregistry.v1+json"}


@dataclass
class Guarded:
    """A worker whose API is for others, and who signs in there."""

    bus: Bus
    worker: Worker
    cluster: Cluster
    trust: ssl.SSLContext
    rules: dict[web.AbstractRoute, Rule]
    session: aiohttp.ClientSession

    async def ask(
        self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, bytes]:
        async with self.session.request(method, self.worker.url + path, headers=headers, data=body) as answer:
            return answer.status, await answer.read()

    async def made(self, name: str, role: Role, **more: Any) -> keys.Made:
        on = more.pop("on", ["orders"] if role in (Role.PRODUCER, Role.CONSUMER) else [])
        return await asyncio.to_thread(partial(keys.create, self.cluster, name, roles=[role], on=on, **more))

    async def until_status(self, wanted: int, headers: Mapping[str, str]) -> None:
        await self.bus.until(partial(self._has_status, wanted, headers), f"answered {wanted}")

    async def _has_status(self, wanted: int, headers: Mapping[str, str]) -> bool:
        return (await self.ask("GET", "/registry/subjects", headers))[0] == wanted


@pytest_asyncio.fixture
async def guarded(kafka: KafkaUnderTest, tmp_path: Path) -> AsyncIterator[Guarded]:
    authority = issue("authority")
    server = issue("worker", authority)
    files = TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    files.certificate.write_text(server.pem)
    files.key.write_text(server.key_pem)
    trust = ssl.create_default_context(cadata=authority.pem)
    async with bus(kafka.bootstrap, tmp_path / "home") as running:
        rules: dict[web.AbstractRoute, Rule] = {}

        def extended(app: web.Application, worker: Worker) -> None:
            extend(app, worker)
            rules.update(rules_of(app))

        settings = WorkerSettings(running.settings, running.names, tmp_path / "home", doors=Doors(api_tls=files))
        running.worker = Worker(settings, extend_api=extended)
        await running.worker.start(
            load_text(f"""
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {running.name("orders")}, owner: sales}}
spec: {{partitions: 1}}
""")
        )
        cluster = Cluster(running.settings, running.names, "tester", running.registry)  # type: ignore[arg-type]
        connector = aiohttp.TCPConnector(ssl=trust)
        async with aiohttp.ClientSession(connector=connector) as session:
            yield Guarded(running, running.worker, cluster, trust, rules, session)


def ways(made: keys.Made, token: str) -> dict[str, dict[str, str]]:
    """Each way of signing in with a key."""
    name, whole = made.principal.name, made.whole
    basic = base64.b64encode(f"{name}:{whole}".encode()).decode()
    return {
        "key": {"X-API-Key": whole},
        "bearer": {"Authorization": f"Bearer {whole}"},
        "basic": {"Authorization": f"Basic {basic}"},
        "token": {"Authorization": f"Bearer {token}"},
    }


async def token_of(guarded: Guarded, made: keys.Made) -> str:
    form = aiohttp.FormData({"grant_type": "client_credentials"})
    basic = base64.b64encode(f"{made.principal.name}:{made.whole}".encode()).decode()
    sent = {"Authorization": f"Basic {basic}"}
    async with guarded.session.post(f"{guarded.worker.url}/v1/token", data=form, headers=sent) as answer:
        assert answer.headers["Cache-Control"] == "no-store"
        return str((await answer.json())["access_token"])


def requests_of(rules: Mapping[web.AbstractRoute, Rule]) -> list[tuple[str, str, bytes | None, Rule, bool]]:
    """A request for each route, and where it is about an object one for ours and one for a foreign one. Bodies change nothing."""
    found = []
    for route, rule in rules.items():
        assert route.resource is not None
        path = route.resource.canonical
        body = b"[]" if route.method in ("POST", "PUT") else None
        for subject in (OWN, FOREIGN) if "{subject" in path else (OWN,):
            filled = path
            for name, value in (("subject", subject), ("version", "7"), ("id", "7")):
                filled = filled.replace(f"{{{name}}}", value)
            found.append((route.method, filled, body, rule, subject == OWN))
    return found


@pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.slow)])
async def test_the_matrix_of_routes_roles_ways_and_objects(guarded: Guarded, every: int) -> None:
    asked = requests_of(guarded.rules)
    assert len({(method, path) for method, path, *_ in asked}) > 50
    wrong = []
    for role in [None, *Role]:
        signed: dict[str, dict[str, str]] = {"nothing": {}, "nonsense": {"X-API-Key": "tlk_no_key"}}
        if role is not None:
            made = await guarded.made(str(role), role, **({"on": ["orders"]} if role is Role.ENGINEER else {}))
            await guarded.until_status(200, {"X-API-Key": made.whole})
            signed = ways(made, await token_of(guarded, made))
        for way, headers in signed.items():
            for method, path, body, rule, own in asked[len(way) % every :: every]:
                status, _ = await guarded.ask(method, path, {**headers, **(SCHEMA if body else {})}, body)
                if status not in _expected(role, rule, own):
                    wrong.append((role, way, method, path, status))
    assert wrong == []


def _expected(role: Role | None, rule: Rule, own: bool) -> set[int]:
    """What may be answered: a refusal, or what the route says of a request that asks for nothing that is there."""
    let_through = {200, 400, 404, 409, 415, 422} | ({401} if rule.public else set())
    if rule.permission is None:
        return let_through
    if role is None:
        return {401}
    limited = role in (Role.PRODUCER, Role.CONSUMER, Role.ENGINEER)
    whole = rule.target is None and rule.permission is not Permission.SCHEMA_READ
    allowed = rule.permission in MAY[role] and not (limited and (whole or (rule.target is not None and not own)))
    return let_through if allowed else {403}


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
async def test_a_page_in_a_browser_changes_and_reads_nothing(guarded: Guarded, every: int) -> None:
    made = await guarded.made("admin", Role.ADMIN)
    key = {"X-API-Key": made.whole}
    await guarded.until_status(200, key)
    local = guarded.worker.local_url
    for url, signed in ((guarded.worker.url, key), (local, {})):
        for method, path, body, _rule, _own in requests_of(guarded.rules)[::every]:
            for headers in (
                {"Origin": "https://evil.example"},
                {"Origin": "null"},
                {"Sec-Fetch-Site": "cross-site"},
                *([{"Host": "evil.example"}] if url == local else []),
                *([{"Content-Type": "text/plain"}] if body and path != "/v1/token" else []),
            ):
                sent = {**signed, **(SCHEMA if body else {}), **headers}
                async with guarded.session.request(method, url + path, headers=sent, data=body) as answer:
                    assert answer.status in (403, 415, 421), (method, path, headers, answer.status)


async def test_a_key_counts_at_every_worker_from_when_it_is_made_until_it_is_revoked(guarded: Guarded) -> None:
    made = await guarded.made("shop", Role.VIEWER, lasts=3600)
    first = {"X-API-Key": made.whole}
    await guarded.until_status(200, first)
    token = {"Authorization": f"Bearer {await token_of(guarded, made)}"}
    assert (await guarded.ask("GET", "/status", token))[0] == 200
    with pytest.raises(ConfigurationError) as refusal:
        await guarded.made("shop", Role.ADMIN)
    assert refusal.value.code == "key.exists"
    rotated = await asyncio.to_thread(partial(keys.rotate, guarded.cluster, "shop", overlap=60.0))
    second = {"X-API-Key": rotated.whole}
    await guarded.until_status(200, second)
    assert (await guarded.ask("GET", "/status", first))[0] == 200
    await asyncio.to_thread(keys.revoke, guarded.cluster, made.key.id)
    await guarded.until_status(401, first)
    assert (await guarded.ask("GET", "/status", token))[0] == 401
    assert (await guarded.ask("GET", "/status", second))[0] == 200
    await asyncio.to_thread(keys.revoke, guarded.cluster, "shop")
    await guarded.until_status(401, second)
    trail = await asyncio.to_thread(partial(entries, guarded.cluster, pipeline=None, limit=None))
    told = [one for one in trail if one.action.startswith("key.")]
    assert [one.action for one in told] == ["key.create", "key.rotate", "key.revoke", "key.revoke"]
    assert all(one.who == "tester" and one.subject == "Principal/shop" for one in told)
    assert all(whole not in json.dumps([one.as_dict() for one in told]) for whole in (made.whole, rotated.whole))
    assert made.key.hash not in json.dumps([one.as_dict() for one in told])


async def test_where_this_machine_may_nothing_the_worker_and_its_user_still_sign_in(
    kafka: KafkaUnderTest, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    async with bus(kafka.bootstrap, home) as running:
        settings = WorkerSettings(running.settings, running.names, home, doors=Doors(local_role=None))
        running.worker = Worker(settings, extend_api=extend)
        topic = running.name("orders")
        await running.worker.start(load_text(topic_manifest(topic)))
        worker = running.worker
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{worker.url}/registry/subjects") as answer:
                assert answer.status == 401
            async with session.get(f"{worker.url}/readyz") as answer:
                assert set(await answer.json()) == {"worker", "status"}
        names = running.names.namespace
        told = Endpoint(
            os.getpid(),
            kafka.bootstrap,
            names,
            worker.url,
            worker.registry_url,
            "",
            (),
            worker.local_url,
            worker.own_key.reveal(),
        )
        write_endpoint(home, told)
        assert (home / "endpoint.json").stat().st_mode & 0o777 == 0o600
        assert told.key not in repr(told)
        options = ["--home", str(home), "--bootstrap", kafka.bootstrap, "--namespace", names, "-o", "json"]
        listed = await asyncio.to_thread(CliRunner().invoke, command_line, [*options, "schema", "ls"])
        assert listed.exit_code == 0, listed.output
        assert json.loads(listed.stdout) == []


async def test_the_command_line_makes_lists_rotates_and_revokes_keys(guarded: Guarded) -> None:
    def run(*words: str) -> Any:
        shared = [
            "--bootstrap",
            guarded.bus.settings.bootstrap,
            "--namespace",
            guarded.bus.names.namespace,
            "-o",
            "json",
        ]
        result = CliRunner().invoke(command_line, [*shared, *words])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    made = await asyncio.to_thread(
        run,
        "key",
        "create",
        "shop",
        "--role",
        "producer",
        "--on",
        "orders.*",
        "--from",
        "127.0.0.1",
        "--rate",
        "50",
        "--expires",
        "30d",
    )
    await guarded.until_status(200, {"X-API-Key": made["secret"]})
    (listed,) = await asyncio.to_thread(run, "key", "ls")
    assert (listed["principal"], listed["key"], listed["lasts"]) == ("shop", made["key"], True)
    assert listed["grants"] == [{"role": "producer", "on": ["orders.*"]}]
    assert made["secret"] not in json.dumps(listed)
    again = await asyncio.to_thread(run, "key", "rotate", "shop", "--overlap", "0")
    await guarded.until_status(401, {"X-API-Key": made["secret"]})
    await guarded.until_status(200, {"X-API-Key": again["secret"]})
    await asyncio.to_thread(guarded.worker.principals.tell_used())
    (listed,) = await asyncio.to_thread(run, "key", "ls")
    assert listed["used"] is not None
    assert await asyncio.to_thread(run, "key", "revoke", "shop") == {"revoked": "shop"}
    assert await asyncio.to_thread(run, "key", "ls") == []
    await guarded.until_status(401, {"X-API-Key": again["secret"]})
