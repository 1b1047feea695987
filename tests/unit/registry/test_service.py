"""The REST interface: answers, refusals and their numbers, as clients of Confluent's registry expect them."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from trunkline.registry.parameters import MAX_BODY
from trunkline.registry.rules import LARGEST_IMPORTED, register
from trunkline.registry.service import CONTENT_TYPE, registry_app, serve_registry
from trunkline.registry.state import SchemaKey, State, Version, highest_id_record, schema_record
from trunkline.registry.store import MemoryStore
from trunkline.registry.wire import MAX_ID

from .sources import record

PLAIN = record(("x", "int"))
OPTIONAL = record(("x", "int"), ("y", ["null", "int"], None))
REQUIRED = record(("x", "int"), ("z", "int"))


class Http:
    """Asks one registry."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def ask(self, method: str, path: str, body: Any = None, **raw: Any) -> tuple[int, Any]:
        options = raw or ({} if body is None else {"json": body})
        async with self.session.request(method, self.url + path, **options) as answer:
            assert answer.content_type == CONTENT_TYPE
            return answer.status, json.loads(await answer.read())

    async def register(self, subject: str, schema: Any, **more: Any) -> tuple[int, Any]:
        query = "?normalize=true" if more.pop("normalize", False) else ""
        return await self.ask("POST", f"/subjects/{subject}/versions{query}", {"schema": json.dumps(schema), **more})

    async def refused(self, method: str, path: str, body: Any = None) -> tuple[int, int]:
        status, answer = await self.ask(method, path, body)
        assert set(answer) == {"error_code", "message"}
        assert answer["message"]
        return status, answer["error_code"]


@pytest.fixture
async def http() -> AsyncIterator[Http]:
    listener = await serve_registry(MemoryStore())
    async with aiohttp.ClientSession() as session:
        yield Http(session, listener.url)
    await listener.stop()


async def test_a_registered_schema_is_found_by_id_by_version_and_by_its_text(http: Http) -> None:
    assert await http.register("s", PLAIN) == (200, {"id": 1, "version": 1})
    text = json.dumps(PLAIN, separators=(",", ":"))
    described = {"subject": "s", "version": 1, "id": 1, "schema": text}
    assert await http.ask("GET", "/schemas/ids/1") == (200, {"schema": text})
    assert await http.ask("GET", "/schemas/ids/1?fetchMaxId=true") == (200, {"schema": text, "maxId": 1})
    assert await http.ask("GET", "/schemas/ids/1/schema") == (200, PLAIN)
    assert await http.ask("GET", "/subjects/s/versions/1") == (200, described)
    assert await http.ask("GET", "/subjects/s/versions/latest") == (200, described)
    assert await http.ask("GET", "/subjects/s/versions/-1/schema") == (200, PLAIN)
    assert await http.ask("POST", "/subjects/s", {"schema": json.dumps(PLAIN, indent=2)}) == (200, described)
    assert await http.ask("GET", "/schemas") == (200, [described])
    assert await http.ask("GET", "/schemas/types") == (200, ["AVRO"])


async def test_the_same_schema_keeps_its_version_and_has_one_id_under_all_subjects(http: Http) -> None:
    await http.register("a", PLAIN)
    assert await http.register("a", {**PLAIN, "fields": [{"name": "x", "type": {"type": "int"}}]}) == (
        200,
        {"id": 1, "version": 1},
    )
    assert await http.register("b", PLAIN) == (200, {"id": 1, "version": 1})
    assert await http.register("b", OPTIONAL) == (200, {"id": 2, "version": 2})
    assert await http.ask("GET", "/subjects") == (200, ["a", "b"])
    assert await http.ask("GET", "/subjects?subjectPrefix=b") == (200, ["b"])
    assert await http.ask("GET", "/subjects?offset=1&limit=1") == (200, ["b"])
    assert await http.ask("GET", "/subjects/b/versions") == (200, [1, 2])
    assert await http.ask("GET", "/schemas/ids/1/subjects") == (200, ["a", "b"])
    assert await http.ask("GET", "/schemas/ids/1/versions") == (
        200,
        [{"subject": "a", "version": 1}, {"subject": "b", "version": 1}],
    )


async def test_normalising_makes_one_schema_of_two_spellings(http: Http) -> None:
    spelled = {"type": "record", "name": "R", "namespace": "test", "fields": [{"type": "int", "name": "x"}]}
    await http.register("s", PLAIN, normalize=True)
    assert await http.register("s", spelled, normalize=True) == (200, {"id": 1, "version": 1})
    assert (await http.register("s", spelled))[1]["id"] == 2


async def test_an_incompatible_schema_is_refused_with_the_path_of_the_break(http: Http) -> None:
    await http.register("s", PLAIN)
    status, answer = await http.register("s", REQUIRED)
    assert (status, answer["error_code"]) == (409, 409)
    assert "/fields/1" in answer["message"]
    assert "READER_FIELD_MISSING_DEFAULT_VALUE" in answer["message"]
    body = {"schema": json.dumps(REQUIRED)}
    assert await http.ask("POST", "/compatibility/subjects/s/versions/latest", body) == (200, {"is_compatible": False})
    assert await http.ask("POST", "/compatibility/subjects/s/versions", {"schema": json.dumps(OPTIONAL)}) == (
        200,
        {"is_compatible": True},
    )
    _, verbose = await http.ask("POST", "/compatibility/subjects/s/versions/1?verbose=true", body)
    assert json.loads(verbose["messages"][0])["errorType"] == "READER_FIELD_MISSING_DEFAULT_VALUE"
    assert "oldSchemaVersion: 1" in verbose["messages"][1]
    assert await http.ask("GET", "/subjects/s/versions") == (200, [1])


async def test_a_transitive_level_looks_at_every_version(http: Http) -> None:
    await http.register("s", record(("x", "int"), ("gone", "int")))
    await http.ask("PUT", "/config/s", {"compatibility": "NONE"})
    await http.register("s", record(("x", "int"), ("gone", "int", 0)))
    await http.register("s", PLAIN)
    back = record(("x", "int"), ("gone", "string", ""))
    await http.ask("PUT", "/config/s", {"compatibility": "BACKWARD"})
    assert await http.ask("POST", "/compatibility/subjects/s/versions", {"schema": json.dumps(back)}) == (
        200,
        {"is_compatible": True},
    )
    await http.ask("PUT", "/config/s", {"compatibility": "BACKWARD_TRANSITIVE"})
    assert (await http.register("s", back))[0] == 409


async def test_levels_are_set_read_and_forgotten(http: Http) -> None:
    assert await http.ask("GET", "/config") == (200, {"compatibilityLevel": "BACKWARD"})
    assert await http.refused("GET", "/config/s") == (404, 40408)
    assert await http.ask("GET", "/config/s?defaultToGlobal=true") == (200, {"compatibilityLevel": "BACKWARD"})
    assert await http.ask("PUT", "/config", {"compatibility": "full"}) == (200, {"compatibility": "FULL"})
    assert await http.ask("PUT", "/config/s", {"compatibility": "NONE"}) == (200, {"compatibility": "NONE"})
    assert await http.ask("GET", "/config/s") == (200, {"compatibilityLevel": "NONE"})
    assert await http.ask("DELETE", "/config/s") == (200, {"compatibilityLevel": "NONE"})
    assert await http.ask("GET", "/config/s?defaultToGlobal=true") == (200, {"compatibilityLevel": "FULL"})
    assert await http.refused("DELETE", "/config/s") == (404, 40408)
    assert await http.refused("PUT", "/config", {"compatibility": "SIDEWARDS"}) == (422, 42203)


async def test_a_version_is_deleted_softly_and_then_for_good(http: Http) -> None:
    await http.register("s", PLAIN)
    await http.register("s", OPTIONAL)
    assert await http.refused("DELETE", "/subjects/s/versions/1?permanent=true") == (404, 40407)
    assert await http.ask("DELETE", "/subjects/s/versions/1") == (200, 1)
    assert await http.refused("DELETE", "/subjects/s/versions/1") == (404, 40406)
    assert await http.refused("GET", "/subjects/s/versions/1") == (404, 40402)
    assert (await http.ask("GET", "/subjects/s/versions/1?deleted=true"))[0] == 200
    assert await http.ask("GET", "/subjects/s/versions") == (200, [2])
    assert await http.ask("GET", "/subjects/s/versions?deleted=true") == (200, [1, 2])
    assert await http.ask("GET", "/subjects/s/versions?deletedOnly=true") == (200, [1])
    assert (await http.ask("GET", "/schemas/ids/1"))[0] == 200
    assert await http.ask("DELETE", "/subjects/s/versions/1?permanent=true") == (200, 1)
    assert await http.ask("GET", "/subjects/s/versions?deleted=true") == (200, [2])
    assert await http.refused("GET", "/schemas/ids/1") == (404, 40403)


async def test_a_subject_is_deleted_softly_and_then_for_good(http: Http) -> None:
    await http.register("s", PLAIN)
    await http.register("s", OPTIONAL)
    assert await http.refused("DELETE", "/subjects/s?permanent=true") == (404, 40405)
    assert await http.ask("DELETE", "/subjects/s") == (200, [1, 2])
    assert await http.refused("DELETE", "/subjects/s") == (404, 40404)
    assert await http.ask("GET", "/subjects") == (200, [])
    assert await http.ask("GET", "/subjects?deleted=true") == (200, ["s"])
    assert await http.refused("POST", "/subjects/s", {"schema": json.dumps(PLAIN)}) == (404, 40401)
    assert (await http.ask("POST", "/subjects/s?deleted=true", {"schema": json.dumps(PLAIN)}))[0] == 200
    assert await http.register("s", PLAIN) == (200, {"id": 1, "version": 3})
    assert await http.ask("DELETE", "/subjects/s") == (200, [3])
    assert await http.ask("DELETE", "/subjects/s?permanent=true") == (200, [1, 2, 3])
    assert await http.register("s", REQUIRED) == (200, {"id": 3, "version": 1})


async def test_what_others_refer_to_is_not_deleted(http: Http) -> None:
    airport = record(("code", "string"), name="geo.Airport")
    route = record(("to", "geo.Airport"), name="geo.Route")
    reference = {"name": "geo.Airport", "subject": "airport", "version": 1}
    await http.register("airport", airport)
    assert (await http.register("route", route))[1]["error_code"] == 42201
    assert (await http.register("route", route, references=[reference]))[0] == 200
    assert await http.ask("GET", "/subjects/airport/versions/1/referencedby") == (200, [2])
    assert (await http.ask("GET", "/schemas/ids/2"))[1]["references"] == [reference]
    assert await http.refused("DELETE", "/subjects/airport") == (422, 42206)
    assert await http.refused("DELETE", "/subjects/airport/versions/1") == (422, 42206)
    await http.ask("DELETE", "/subjects/route")
    assert await http.ask("DELETE", "/subjects/airport") == (200, [1])
    assert await http.refused("DELETE", "/subjects/airport?permanent=true") == (422, 42206)
    await http.ask("DELETE", "/subjects/route?permanent=true")
    assert await http.ask("DELETE", "/subjects/airport?permanent=true") == (200, [1])


async def test_a_read_only_registry_changes_nothing(http: Http) -> None:
    await http.register("s", PLAIN)
    assert await http.ask("PUT", "/mode", {"mode": "READONLY"}) == (200, {"mode": "READONLY"})
    assert (await http.register("s", OPTIONAL))[1]["error_code"] == 42205
    assert (await http.register("s", PLAIN))[0] == 200
    for method, path, body in [
        ("DELETE", "/subjects/s", None),
        ("DELETE", "/subjects/s/versions/1", None),
        ("PUT", "/config/s", {"compatibility": "NONE"}),
    ]:
        assert await http.refused(method, path, body) == (422, 42205)
    assert await http.ask("PUT", "/mode/s", {"mode": "READWRITE"}) == (200, {"mode": "READWRITE"})
    assert (await http.register("s", OPTIONAL))[0] == 200
    assert await http.ask("DELETE", "/mode/s") == (200, {"mode": "READWRITE"})
    assert await http.refused("DELETE", "/mode/s") == (404, 40409)
    assert await http.refused("GET", "/mode/s") == (404, 40409)
    assert await http.ask("GET", "/mode/s?defaultToGlobal=true") == (200, {"mode": "READONLY"})
    assert await http.refused("PUT", "/mode", {"mode": "SLEEPY"}) == (422, 42204)


async def test_import_mode_takes_ids_and_versions_as_they_are(http: Http) -> None:
    assert (await http.register("s", PLAIN, id=77, version=5))[1]["error_code"] == 42205
    assert await http.ask("PUT", "/mode/s", {"mode": "IMPORT"}) == (200, {"mode": "IMPORT"})
    assert await http.register("s", PLAIN, id=77, version=5) == (200, {"id": 77, "version": 5})
    assert (await http.register("s", OPTIONAL, id=77, version=6))[1]["error_code"] == 42205
    assert (await http.register("s", REQUIRED, id=78, version=6))[0] == 200
    assert await http.register("other", "string") == (200, {"id": 79, "version": 1})
    assert await http.refused("PUT", "/mode/other", {"mode": "IMPORT"}) == (422, 42205)
    assert (await http.ask("PUT", "/mode/other?force=true", {"mode": "IMPORT"}))[0] == 200


async def test_a_client_that_leaves_a_list_unread_is_no_fault_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    for number in range(8):
        schema = json.dumps({"type": "record", "name": f"R{number}", "doc": "d" * 900_000, "fields": []})
        await store.write(register(f"s{number}", schema))
    listener = await serve_registry(store)
    host, port = listener.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /schemas HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()
    await listener.stop()
    assert [line.getMessage() for line in caplog.records if line.levelno >= logging.ERROR] == []


async def test_no_import_takes_the_ids_of_new_schemas_and_none_is_given_that_no_record_can_have(http: Http) -> None:
    await http.ask("PUT", "/mode/s", {"mode": "IMPORT"})
    for wanted in (MAX_ID, LARGEST_IMPORTED + 1):
        assert (await http.register("s", PLAIN, id=wanted, version=1))[1]["error_code"] == 42205
    assert await http.register("s", PLAIN, id=LARGEST_IMPORTED, version=MAX_ID) == (
        200,
        {"id": LARGEST_IMPORTED, "version": MAX_ID},
    )
    assert await http.register("other", "string") == (200, {"id": LARGEST_IMPORTED + 1, "version": 1})
    await http.ask("PUT", "/mode/s", {"mode": "READWRITE"})
    assert (await http.register("s", OPTIONAL))[1]["error_code"] == 42205  # its versions have come to their end


def test_a_record_with_an_id_that_nobody_can_write_is_unreadable_and_spoils_no_other() -> None:
    state = State()
    for wanted in (MAX_ID + 1, -1):
        made = Version("s", 1, wanted, SchemaKey('"int"', ()))
        state.take(schema_record(made))
    state.take(highest_id_record(MAX_ID + 1))
    assert (state.unreadable, state.highest_id, state.subjects) == (2, 0, {})


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "number"),
    [
        ("GET", "/subjects/none/versions", None, 404, 40401),
        ("GET", "/subjects/none/versions/1", None, 404, 40401),
        ("GET", "/subjects/s/versions/9", None, 404, 40402),
        ("GET", "/subjects/s/versions/0", None, 422, 42202),
        ("GET", "/subjects/s/versions/2147483648", None, 422, 42202),
        ("GET", "/subjects/s/versions/first", None, 422, 42202),
        ("DELETE", "/subjects/none", None, 404, 40401),
        ("DELETE", "/subjects/s/versions/9", None, 404, 40402),
        ("DELETE", "/subjects/s/versions/x", None, 422, 42202),
        ("GET", "/schemas/ids/99", None, 404, 40403),
        ("GET", "/schemas/ids/99/versions", None, 404, 40403),
        ("GET", "/schemas/ids/abc", None, 404, 404),
        ("POST", "/subjects/none", {"schema": '"int"'}, 404, 40401),
        ("POST", "/subjects/s", {"schema": '"int"'}, 404, 40403),
        ("POST", "/subjects/s", {"schema": "{"}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": '{"type": "nonsense"}'}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": ""}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": 5}, 422, 42201),
        ("POST", "/subjects/s/versions", {}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": '{"type":"object"}', "schemaType": "JSON"}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": "syntax", "schemaType": "PROTOBUF"}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": '"int"', "references": [{"name": "x"}]}, 422, 42201),
        ("POST", "/subjects/s/versions", {"schema": "[" * 5000 + "]" * 5000}, 422, 42201),
        ("POST", "/subjects/s/versions", [], 400, 400),
        ("POST", "/compatibility/subjects/none/versions/1", {"schema": '"int"'}, 404, 40401),
        ("POST", "/compatibility/subjects/s/versions/9", {"schema": '"int"'}, 404, 40402),
        ("POST", "/compatibility/subjects/s/versions/0", {"schema": '"int"'}, 422, 42202),
        ("GET", "/nonsense", None, 404, 404),
        ("PATCH", "/subjects", None, 405, 405),
    ],
)
async def test_each_refusal_has_its_number(
    http: Http, method: str, path: str, body: Any, status: int, number: int
) -> None:
    await http.register("s", PLAIN)
    assert await http.refused(method, path, body) == (status, number)


async def test_a_body_that_is_no_json_or_too_large_is_refused(http: Http) -> None:
    assert (await http.ask("POST", "/subjects/s/versions", data=b"{nonsense"))[0] == 400
    assert (await http.ask("POST", "/subjects/s/versions", data=io.BytesIO(b"x" * (MAX_BODY + 1))))[0] == 413

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY // 65536 + 2):
            yield b" " * 65536

    assert (await http.ask("POST", "/subjects/s/versions", data=endless()))[0] == 413


async def test_subjects_with_odd_names_are_kept_apart(http: Http) -> None:
    for name in ("a%2Fb", "a%20b", "a%25b", "%C3%BC", ":.ctx:a"):
        assert (await http.register(name, PLAIN))[0] == 200
    assert await http.ask("GET", "/subjects") == (200, [":.ctx:a", "a b", "a%b", "a/b", "ü"])
    assert (await http.ask("GET", "/subjects/a%2Fb/versions/1"))[1]["subject"] == "a/b"


async def test_the_interface_can_be_mounted_below_a_path() -> None:
    outer = web.Application()
    outer.add_subapp("/registry", registry_app(MemoryStore()))
    runner = web.AppRunner(outer, lingering_time=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with aiohttp.ClientSession() as session:
        http = Http(session, f"http://127.0.0.1:{runner.addresses[0][1]}/registry")
        assert (await http.register("s", PLAIN))[0] == 200
        assert await http.refused("GET", "/schemas/ids/9") == (404, 40403)
        assert (await http.ask("POST", "/subjects/s/versions", data=io.BytesIO(b"x" * (MAX_BODY + 1))))[0] == 413
    await runner.cleanup()
