"""The outside of the REST interface: subjects of any name, numbers in paths, and the media types that Confluent's registry speaks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
from confluent_kafka.schema_registry import Schema as WireSchema
from confluent_kafka.schema_registry import SchemaRegistryClient

from trunkline.registry.canonical import canonical_text
from trunkline.registry.client import RegistryClient
from trunkline.registry.schema import Schema
from trunkline.registry.service import serve_registry
from trunkline.registry.store import MemoryStore

from .served import FAST, apart
from .sources import record

V1 = "application/vnd.schemaregistry.v1+json"
UNVERSIONED = "application/vnd.schemaregistry+json"
JSON = "application/json"
PLAIN = record(("x", "int"))


class Bare:
    """Asks with the headers that are given, and no others of its own."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def ask(
        self, method: str, path: str, headers: dict[str, str] | None = None, body: Any = None
    ) -> tuple[int, str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {**({} if body is None else {"Content-Type": V1}), **(headers or {})}
        async with self.session.request(
            method,
            self.url + path,
            data=data,
            headers=headers,
            skip_auto_headers=[name for name in ("Accept", "Content-Type") if name not in headers],
        ) as answer:
            return answer.status, answer.content_type, json.loads(await answer.read())


@pytest.fixture
async def bare() -> AsyncIterator[Bare]:
    listener = await serve_registry(MemoryStore())
    async with aiohttp.ClientSession() as session:
        yield Bare(session, listener.url)
    await listener.stop()


# --- subjects ---

SUBJECTS = [
    *("{a}", "a{b", "}", "{}", "{subject:x}", "%7B"),
    *("a/b", "a+b", "a b", "a%b", "a%2Fb", "a?b#c", "a;b=c"),
    *("ü", "雪", "a.b", "..a", "-1", "latest"),
]


@pytest.mark.parametrize("subject", SUBJECTS)
async def test_a_subject_may_have_any_name(bare: Bare, subject: str) -> None:
    there = f"/subjects/{quote(subject, safe='')}"
    body = {"schema": json.dumps(PLAIN)}
    assert (await bare.ask("POST", f"{there}/versions", {}, body))[2] == {"id": 1, "version": 1}
    assert (await bare.ask("GET", "/subjects"))[2] == [subject]
    assert (await bare.ask("GET", f"{there}/versions"))[2] == [1]
    assert (await bare.ask("GET", f"{there}/versions/1"))[2]["subject"] == subject
    assert (await bare.ask("GET", f"{there}/versions/latest/schema"))[2] == PLAIN
    assert (await bare.ask("GET", f"{there}/versions/1/referencedby"))[2] == []
    assert (await bare.ask("POST", there, {}, body))[2]["version"] == 1
    for path in ("/versions", "/versions/1"):
        assert (await bare.ask("POST", f"/compatibility{there}{path}", {}, body))[2] == {"is_compatible": True}
    for noun, value in (("config", {"compatibility": "FULL"}), ("mode", {"mode": "READWRITE"})):
        place = f"/{noun}/{quote(subject, safe='')}"
        assert (await bare.ask("PUT", place, {}, value))[0] == 200
        assert (await bare.ask("GET", place))[0] == 200
        assert (await bare.ask("DELETE", place))[0] == 200
    assert (await bare.ask("DELETE", f"{there}/versions/1"))[2] == 1
    assert (await bare.ask("DELETE", f"{there}?permanent=true"))[2] == [1]


@pytest.mark.parametrize("options", [FAST, {}], ids=["as one elsewhere", "as one on this machine"])
@pytest.mark.parametrize("subject", ["{a}", "a/b + c", "ü"])
async def test_our_client_finds_such_subjects(bare: Bare, subject: str, options: dict[str, Any]) -> None:
    def use() -> None:
        client = RegistryClient(bare.url, options)
        made = client.register(subject, Schema(PLAIN))
        assert client.latest(subject) == made
        assert client.subjects_of(made) == [subject]
        client.close()

    await apart(use)


@pytest.mark.parametrize("subject", ["a\nb", "a\x00b", "__GLOBAL", "__EMPTY"])
async def test_nothing_is_registered_under_a_name_that_is_none(bare: Bare, subject: str) -> None:
    status, _, answer = await bare.ask("POST", f"/subjects/{quote(subject, safe='')}/versions", {}, {"schema": '"int"'})
    assert (status, answer["error_code"]) == (422, 42208)


# --- numbers ---


@pytest.mark.parametrize(
    ("path", "status", "number"),
    [
        ("/schemas/ids/abc", 404, 404),
        ("/schemas/ids/1.0", 404, 404),
        ("/schemas/ids/1e0", 404, 404),
        ("/schemas/ids/0x1", 404, 404),
        ("/schemas/ids/%D9%A1", 404, 404),
        ("/schemas/ids/2147483648", 404, 404),
        ("/schemas/ids/-2147483649", 404, 404),
        ("/schemas/ids/" + "9" * 5000, 404, 404),
        ("/schemas/ids/2147483647", 404, 40403),
        ("/schemas/ids/0", 404, 40403),
        ("/schemas/ids/-1", 404, 40403),
        ("/schemas/ids/abc/schema", 404, 404),
        ("/schemas/ids/abc/subjects", 404, 404),
        ("/schemas/ids/abc/versions", 404, 404),
        ("/subjects?offset=x", 404, 404),
        ("/subjects?limit=99999999999", 404, 404),
        ("/subjects/s/versions/-2", 422, 42202),
        ("/subjects/s/versions/0", 422, 42202),
        ("/subjects/s/versions/1.0", 422, 42202),
        ("/subjects/s/versions/99999999999", 422, 42202),
        ("/subjects/s/versions/" + "0" * 5000, 422, 42202),
        ("/subjects/s/versions/7", 404, 40402),
    ],
)
async def test_what_is_no_number_leads_nowhere(bare: Bare, path: str, status: int, number: int) -> None:
    await bare.ask("POST", "/subjects/s/versions", {}, {"schema": '"int"'})
    found, _, answer = await bare.ask("GET", path)
    assert (found, answer["error_code"]) == (status, number)


async def test_numbers_are_read_as_java_reads_them(bare: Bare) -> None:
    await bare.ask("POST", "/subjects/s/versions", {}, {"schema": '"int"'})
    for path in ("/schemas/ids/001", "/schemas/ids/+1", "/subjects/s/versions/%201%20", "/subjects/s/versions/LATEST"):
        assert (await bare.ask("GET", path))[2]["schema"] == '"int"'


# --- what is kept of a schema ---


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ({"type": "int", "name": "x"}, "int"),
        ({"type": "string", "name": "x", "namespace": "n", "doc": "d", "aliases": ["y"]}, "string"),
        ({"type": "int", "name": "x", "logicalType": "date"}, {"type": "int", "logicalType": "date"}),
        ({"type": "array", "items": {"type": "int", "name": "x"}, "name": "y"}, {"type": "array", "items": "int"}),
        ({"type": "map", "values": "int", "doc": "d", "mine": 1}, {"type": "map", "values": "int", "mine": 1}),
        ([{"type": "null", "name": "n"}, {"type": "int", "fields": []}], ["null", "int"]),
        ({"type": {"type": "int", "name": "x"}, "name": "y"}, "int"),
        (
            record({"name": "a", "type": {"type": "int", "name": "x"}, "order": "ascending"}, name="R")
            | {"size": 3, "symbols": [], "doc": 5},
            {"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}]},
        ),
        (
            record(("a", record(name="B")), ("b", {"type": "B", "doc": "again"}), name="R"),
            record(("a", record(name="B")), ("b", "B"), name="R"),
        ),
        (record({"name": "a", "type": "int", "size": 3}), record({"name": "a", "type": "int", "size": 3})),
        (record({"name": "a", "type": "int", "order": "ignore"}), record({"name": "a", "type": "int", "order": "ignore"})),
    ],
)  # fmt: skip
async def test_what_avro_takes_no_notice_of_is_not_kept(bare: Bare, sent: Any, kept: Any) -> None:
    first = (await bare.ask("POST", "/subjects/s/versions", {}, {"schema": json.dumps(sent)}))[2]
    assert (await bare.ask("GET", f"/schemas/ids/{first['id']}/schema"))[2] == kept
    assert (await bare.ask("POST", "/subjects/s/versions", {}, {"schema": json.dumps(kept)}))[2] == first
    normal = {"schema": json.dumps(sent)}
    again = (await bare.ask("POST", "/subjects/n/versions?normalize=true", {}, normal))[2]
    assert json.loads(canonical_text(kept)) == (await bare.ask("GET", f"/schemas/ids/{again['id']}/schema"))[2]


# --- media types ---


@pytest.mark.parametrize(
    ("accept", "answered"),
    [
        (None, V1),
        ("", V1),
        ("*/*", V1),
        ("application/*", V1),
        (V1, V1),
        (UNVERSIONED, UNVERSIONED),
        (JSON, JSON),
        ("application/json; charset=utf-8", JSON),
        ("APPLICATION/JSON", JSON),
        (f"{V1},{UNVERSIONED},{JSON}", V1),
        (f"{V1}; q=0.1, {JSON}", JSON),
        (f"{JSON};q=0.5, text/html", JSON),
        (f"{V1};q=0, */*", UNVERSIONED),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", V1),
    ],
)
async def test_the_answer_comes_in_the_type_that_is_accepted(bare: Bare, accept: str | None, answered: str) -> None:
    headers = {} if accept is None else {"Accept": accept}
    assert (await bare.ask("GET", "/subjects", headers))[:2] == (200, answered)
    assert (await bare.ask("GET", "/schemas/ids/7", headers))[:2] == (404, answered)


@pytest.mark.parametrize("accept", ["text/html", "text/*", "application/xml", "application/json;q=0", "nonsense", ","])
async def test_who_accepts_nothing_that_the_registry_speaks_gets_406(bare: Bare, accept: str) -> None:
    status, _, answer = await bare.ask("GET", "/subjects", {"Accept": accept})
    assert (status, answer) == (406, {"error_code": 406, "message": "HTTP 406 Not Acceptable"})
    assert (await bare.ask("POST", "/subjects/s/versions", {"Accept": accept}, {"schema": '"int"'}))[0] == 406
    assert (await bare.ask("GET", "/subjects"))[2] == []


@pytest.mark.parametrize(
    "sent", [V1, UNVERSIONED, JSON, "application/octet-stream", "application/json; charset=utf-8", "Application/JSON"]
)
async def test_a_body_is_taken_in_the_types_that_confluents_registry_takes(bare: Bare, sent: str) -> None:
    assert (await bare.ask("POST", "/subjects/s/versions", {"Content-Type": sent}, {"schema": '"int"'}))[0] == 200


SIMPLE = [
    "text/plain",
    "text/plain; charset=utf-8",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=b",
]


@pytest.mark.parametrize(
    "sent",
    [*SIMPLE, "text/html", "application/xml", "nonsense", "text/plain; application/json", "", "application/jsonx"],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/subjects/s/versions"),
        ("POST", "/subjects/s"),
        ("POST", "/compatibility/subjects/s/versions"),
        ("PUT", "/config"),
        ("PUT", "/mode/s"),
        ("DELETE", "/subjects/s"),
    ],
)
async def test_a_body_in_another_type_changes_nothing(bare: Bare, method: str, path: str, sent: str) -> None:
    await bare.ask("POST", "/subjects/s/versions", {}, {"schema": '"string"'})
    body = {"schema": '"int"', "compatibility": "NONE", "mode": "READONLY"}
    status, _, answer = await bare.ask(method, path, {"Content-Type": sent}, body)
    assert (status, answer["error_code"]) == (415, 415)
    assert (await bare.ask("GET", "/subjects/s/versions"))[2] == [1]
    assert (await bare.ask("GET", "/config"))[2] == {"compatibilityLevel": "BACKWARD"}


async def test_a_list_of_schemas_is_written_piece_by_piece(bare: Bare) -> None:
    assert (await bare.ask("GET", "/schemas", {"Accept": JSON})) == (200, JSON, [])
    for number in range(3):
        source = {**PLAIN, "doc": f"{number} " + "x" * 100_000}
        await bare.ask("POST", "/subjects/s/versions", {}, {"schema": json.dumps(source)})
    async with bare.session.get(f"{bare.url}/schemas") as answer:
        assert answer.headers["Transfer-Encoding"] == "chunked"
        assert [each["version"] for each in json.loads(await answer.read())] == [1, 2, 3]
    async with bare.session.head(f"{bare.url}/schemas") as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    assert (await bare.ask("GET", "/subjects"))[2] == ["s"]


async def test_confluents_client_is_understood(bare: Bare) -> None:
    def use() -> None:
        with SchemaRegistryClient({"url": bare.url}) as client:
            made = client.register_schema("{s}", WireSchema(json.dumps(PLAIN), "AVRO"))
            assert client.get_schema(made).schema_str == json.dumps(PLAIN, separators=(",", ":"))
            assert client.get_latest_version("{s}").version == 1
            assert client.set_compatibility("{s}", "FULL")["compatibility"] == "FULL"
            assert client.test_compatibility("{s}", WireSchema(json.dumps(PLAIN), "AVRO"))
            assert client.delete_subject("{s}") == [1]

    await apart(use)
