"""The client of any registry: what it keeps, what it asks again, and which failure is which."""

from __future__ import annotations

import json
import socket

import pytest

from trunkline.core.errors import ConfigurationError, RejectedError, RetriableError, UnavailableError
from trunkline.registry import client as client_module
from trunkline.registry.client import RegistryClient
from trunkline.registry.rules import register
from trunkline.registry.schema import Schema

from .served import FAST, Registry, apart
from .sources import record


async def test_a_registered_schema_is_found_by_id_and_as_the_latest(client: RegistryClient) -> None:
    made = await apart(client.register, "s", Schema(record(("x", "int"))))
    assert made.id == 1
    assert await apart(client.by_id, 1) == made
    assert await apart(client.latest, "s") == made
    assert await apart(client.subjects) == ["s"]
    assert await apart(client.versions, "s") == [1]
    assert await apart(client.versions, "none") == []


async def test_an_id_is_asked_for_once_whatever_happens_later(registry: Registry, client: RegistryClient) -> None:
    await registry.store.write(register("s", '"int"'))
    await apart(client.by_id, 1)
    asked = registry.requests
    registry.out_of_order = 500
    assert (await apart(client.by_id, 1)).json == "int"
    assert registry.requests == asked


async def test_an_unknown_id_is_remembered_for_a_short_time_only(
    registry: Registry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        with pytest.raises(RejectedError) as refused:
            await apart(client.by_id, 1)
        assert refused.value.code == "record.unknown_schema"
    assert registry.requests == 1
    await registry.store.write(register("s", '"int"'))
    later = client_module.time.monotonic() + client_module.UNKNOWN_FOR + 1
    monkeypatch.setattr(client_module.time, "monotonic", lambda: later)
    assert await apart(client.by_id, 1) is not None


@pytest.mark.parametrize("status", [500, 503, 429])
async def test_a_registry_out_of_order_is_no_unknown_schema(
    registry: Registry, client: RegistryClient, status: int
) -> None:
    await registry.store.write(register("s", '"int"'))
    registry.out_of_order = status
    for call in (lambda: client.by_id(1), lambda: client.latest("s"), lambda: client.register("s", Schema("int"))):
        with pytest.raises(RetriableError) as failed:
            await apart(call)
        assert failed.value.code == "registry.unavailable"
    registry.out_of_order = None
    assert (await apart(client.by_id, 1)).json == "int"


async def test_an_unreachable_registry_is_no_unknown_schema() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = RegistryClient(f"http://user:geheim@127.0.0.1:{taken.getsockname()[1]}", FAST)
        with pytest.raises(RetriableError) as failed:
            await apart(client.by_id, 1)
        client.close()
    assert failed.value.code == "registry.refused"
    assert "geheim" not in str(failed.value)


async def test_a_404_of_something_else_is_no_unknown_schema(registry: Registry) -> None:
    client = RegistryClient(registry.url.replace("/registry", "/elsewhere"), FAST)  # type: ignore[attr-defined]
    with pytest.raises(ConfigurationError, match="is this the URL of a schema registry"):
        await apart(client.by_id, 1)
    client.close()


async def test_a_password_is_sent_and_a_wrong_one_has_a_code_of_its_own(
    registry: Registry, client: RegistryClient
) -> None:
    registry.password = "Basic dTpw"
    with pytest.raises(UnavailableError) as refused:
        await apart(client.subjects)
    assert (refused.value.code, refused.value.exit_code) == ("registry.authentication", 3)
    right = RegistryClient(registry.url, {"basic.auth.user.info": "u:p"})  # type: ignore[attr-defined]
    assert await apart(right.subjects) == []
    right.close()


async def test_an_incompatible_schema_is_refused_and_its_breaks_are_told(client: RegistryClient) -> None:
    await apart(client.register, "s", Schema(record(("x", "int"))))
    wider = Schema(record(("x", "int"), ("z", "int")))
    with pytest.raises(ConfigurationError) as refused:
        await apart(client.register, "s", wider)
    assert refused.value.code == "schema.incompatible"
    assert [(number, found.path) for number, found in await apart(client.breaks, "s", wider)] == [(1, "/fields/1")]
    await apart(client.set_level, "s", "NONE")
    assert await apart(client.breaks, "s", wider) == []
    assert (await apart(client.register, "s", wider)).id == 2


async def test_references_are_followed(registry: Registry, client: RegistryClient) -> None:
    code = {"type": "fixed", "name": "geo.Code", "size": 3}
    airport = record(("code", "geo.Code"), name="geo.Airport")
    route = record(("start", "geo.Airport"), ("stop", "geo.Airport"), ("via", ["null", "geo.Code"]), name="geo.Route")
    await registry.store.write(register("code", json.dumps(code)))
    uses_code = {"name": "geo.Code", "subject": "code", "version": 1}
    await registry.store.write(register("airport", json.dumps(airport), None, [uses_code]))
    uses_airport = {"name": "geo.Airport", "subject": "airport", "version": 1}
    made = await registry.store.write(register("route", json.dumps(route), None, [uses_airport, uses_code]))
    found = await apart(client.by_id, made.id)
    assert found.json == record(
        ("start", record(("code", code), name="geo.Airport")),
        ("stop", "geo.Airport"),
        ("via", ["null", "geo.Code"]),
        name="geo.Route",
    )


async def test_an_unknown_subject_and_a_wrong_option_are_configuration_errors(client: RegistryClient) -> None:
    with pytest.raises(ConfigurationError) as refused:
        await apart(client.latest, "none")
    assert refused.value.code == "schema.unknown_subject"
    with pytest.raises(ConfigurationError):
        RegistryClient("http://localhost", {"no.such.option": 1})
