"""Routes and their rules: nothing is served without one, and nothing beyond it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import orjson
import pytest
from aiohttp import web

from trunkline.core.access.directory import Directory
from trunkline.core.access.keys import make_key
from trunkline.core.access.principals import NOBODY, Caller, Principal, local
from trunkline.core.access.roles import Grant, Permission, Role
from trunkline.core.access.rules import PUBLIC, Rule
from trunkline.core.serving.guarding import CALLER, Access, add_route, guarded, rules_of
from trunkline.core.serving.listener import Listener
from trunkline.registry.access import rule_of
from trunkline.registry.service import registry_app
from trunkline.registry.store import MemoryStore


async def who(request: web.Request) -> web.Response:
    return web.Response(text=request[CALLER].name)


@asynccontextmanager
async def served(directory: Directory, anonymous: Caller) -> AsyncIterator[str]:
    app = web.Application()
    add_route(app, "GET", "/health", who, PUBLIC)
    add_route(app, "GET", "/status", who, Rule(Permission.STATUS_READ))
    add_route(app, "PUT", "/level", who, Rule(Permission.LOG_LEVEL))
    app.add_subapp("/registry", registry_app(MemoryStore()))
    listener = Listener("test", ("127.0.0.1", 0), "")
    await listener.start(web.AppRunner(guarded(app, Access(directory, anonymous), {"orders": "sales"}.get)))
    try:
        yield listener.url
    finally:
        await listener.stop()


@pytest.fixture
def directory() -> Directory:
    return Directory()


def key_of(directory: Directory, name: str, *grants: Grant, team: str | None = None) -> dict[str, str]:
    key, whole = make_key(0.0)
    directory.heard(name, orjson.dumps(Principal(name, grants, team, (key,)).as_dict()))
    return {"X-API-Key": whole}


async def ask(url: str, method: str, path: str, headers: dict[str, str] | None = None) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session:
        body = b"{}" if method in ("POST", "PUT") else None
        said = {"Content-Type": "application/vnd.schemaregistry.v1+json"} if body else {}
        async with session.request(method, url + path, headers={**said, **(headers or {})}, data=body) as answer:
            return answer.status, await answer.text()


async def test_nobody_who_has_not_signed_in_gets_anything_but_health(directory: Directory) -> None:
    async with served(directory, NOBODY) as url:
        assert (await ask(url, "GET", "/health"))[0] == 200
        assert (await ask(url, "GET", "/health", {"X-API-Key": "wrong"}))[0] == 200
        for method, path in [
            ("GET", "/status"),
            ("HEAD", "/status"),
            ("PUT", "/level"),
            ("GET", "/registry/subjects"),
            ("GET", "/nowhere"),
            ("GET", "/registry/nowhere"),
            ("DELETE", "/status"),
            ("OPTIONS", "/status"),
            ("GET", "/health/"),
            ("GET", "//status"),
            ("GET", "/%73tatus"),
        ]:
            assert (await ask(url, method, path))[0] == 401, (method, path)


async def test_who_signed_in_gets_what_his_roles_allow(directory: Directory) -> None:
    viewer = key_of(directory, "viewer", Grant(Role.VIEWER))
    async with served(directory, NOBODY) as url:
        assert await ask(url, "GET", "/status", viewer) == (200, "viewer")
        assert (await ask(url, "HEAD", "/status", viewer))[0] == 200
        assert (await ask(url, "PUT", "/level", viewer))[0] == 403
        assert (await ask(url, "GET", "/registry/subjects", viewer))[0] == 200
        assert (await ask(url, "POST", "/registry/subjects/x/versions", viewer))[0] == 403
        assert (await ask(url, "GET", "/nowhere", viewer))[0] == 404
        assert (await ask(url, "DELETE", "/status", viewer))[0] == 405
        directory.heard("viewer", None)
        assert (await ask(url, "GET", "/status", viewer))[0] == 401


async def test_a_team_changes_the_schemas_of_what_it_owns(directory: Directory) -> None:
    engineer = key_of(directory, "engineer", Grant(Role.ENGINEER, ("own", "extra.*")), team="sales")
    async with served(directory, NOBODY) as url:
        for subject, status in [
            ("orders-value", 422),  # the schema is none: it was let through
            ("orders-key", 422),
            ("extra.one-value", 422),
            ("salaries-value", 403),
            ("orders2-value", 403),
            ("orders-value-value", 403),
            ("own", 403),
        ]:
            assert (await ask(url, "POST", f"/registry/subjects/{subject}/versions", engineer))[0] == status, subject
        assert (await ask(url, "DELETE", "/registry/subjects/salaries-value", engineer))[0] == 403
        assert (await ask(url, "PUT", "/registry/config/salaries-value", engineer))[0] == 403
        assert (await ask(url, "PUT", "/registry/config", engineer))[0] == 403


async def test_what_concerns_all_who_use_the_registry_is_nobodys_for_one_subject(directory: Directory) -> None:
    """Deleting for good takes the schema from records that were written with it, and import mode chooses ids for everybody."""
    engineer = key_of(directory, "engineer", Grant(Role.ENGINEER))
    admin = key_of(directory, "admin", Grant(Role.ADMIN))
    async with served(directory, NOBODY) as url:
        for path in ("/registry/subjects/orders-value", "/registry/subjects/orders-value/versions/1"):
            assert (await ask(url, "DELETE", path, engineer))[0] == 404
            assert (await ask(url, "DELETE", path + "?permanent=false", engineer))[0] == 404
            for query in ("permanent=true", "permanent=TRUE", "permanent=%74rue", "permanent=true&permanent=false"):
                assert (await ask(url, "DELETE", f"{path}?{query}", engineer))[0] == 403, query
                assert (await ask(url, "DELETE", f"{path}?{query}", admin))[0] == 404
        for path in ("/registry/mode", "/registry/mode/orders-value"):
            for method in ("PUT", "DELETE"):
                assert (await ask(url, method, path, engineer))[0] == 403, (method, path)
                assert (await ask(url, method, path, admin))[0] != 403


async def test_on_loopback_this_machine_needs_no_key_and_nobody_who_comes_through_a_proxy_is_it(
    directory: Directory,
) -> None:
    async with served(directory, local(Role.VIEWER)) as url:
        assert await ask(url, "GET", "/status") == (200, "local")
        assert (await ask(url, "PUT", "/level"))[0] == 403
        assert (await ask(url, "GET", "/status", {"X-API-Key": "wrong"}))[0] == 401
        for name in (
            *("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "Forwarded", "X-Real-IP", "Via", "CDN-Loop"),
            *("CF-Connecting-IP", "True-Client-IP", "X-Client-IP", "X-Cluster-Client-IP", "X-Azure-ClientIP"),
            *("X-Original-Forwarded-For", "X-Envoy-External-Address", "Fastly-Client-IP"),
        ):
            assert (await ask(url, "GET", "/status", {name: "10.0.0.1"}))[0] == 401, name


def test_a_route_without_a_rule_is_not_served(directory: Directory) -> None:
    app, inner = web.Application(), web.Application()
    add_route(app, "GET", "/status", who, Rule(Permission.STATUS_READ))
    inner.router.add_get("/forgotten", who)
    app.add_subapp("/inner", inner)
    with pytest.raises(LookupError, match="/inner/forgotten"):
        guarded(app, Access(directory))


def test_every_route_of_the_registry_has_a_rule() -> None:
    rules = rules_of(registry_app(MemoryStore()))
    assert len(rules) > 40
    assert not any(rule.public for rule in rules.values())
    for method, path in (("POST", "/anything"), ("PATCH", "/config"), ("POST", "/config")):
        with pytest.raises(LookupError):
            rule_of(method, path)
