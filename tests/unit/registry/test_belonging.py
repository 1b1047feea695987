"""Whether a schema id belongs to a topic's subject, asked of a registry over HTTP, by both of the client's ways."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web

from trunkline.core.errors import ConfigurationError, RejectedError, RetriableError
from trunkline.core.subjects import Subjects, full_name, pattern_of
from trunkline.registry import belonging
from trunkline.registry.belonging import Belonging
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Decoder
from trunkline.registry.rules import delete_subject, register, set_level
from trunkline.registry.schema import Schema
from trunkline.registry.wire import frame

from .served import Registry, apart
from .sources import record

PAYER, PAYEE = record(("payer", "string"), name="shop.Order"), record(("payee", "string"), name="bank.Transfer")


async def _filled(registry: Registry) -> None:
    """Id 1 is an order's, id 2 a transfer's."""
    for subject, schema in (("orders-value", PAYER), ("transfers-value", PAYEE)):
        await registry.store.write(register(subject, Schema(schema).text))


def _decoder(client: RegistryClient, topic: str, *patterns: str, lenient: bool = False) -> Decoder:
    subjects = Subjects(topic, patterns or ("{topic}-value",), lenient)
    return Decoder(client, belongs=Belonging(client, subjects))


async def test_an_id_of_another_subject_is_refused_with_both_named(registry: Registry, client: RegistryClient) -> None:
    await _filled(registry)
    decoder = _decoder(client, "orders")
    assert (await apart(decoder.decode, frame(1, b"\x06Ann")))[1] == {"payer": "Ann"}
    with pytest.raises(RejectedError) as refused:
        await apart(decoder.decode, frame(2, b"\x06Ann"))
    assert refused.value.code == "record.foreign_schema"
    for named in ("schema id 2", "bank.Transfer", "transfers-value", "orders-value", client.name):
        assert named in refused.value.message
    assert "redrive" in (refused.value.hint or "")


async def test_what_is_known_to_belong_is_asked_once(registry: Registry, client: RegistryClient) -> None:
    await _filled(registry)
    decoder = _decoder(client, "orders")
    await apart(decoder.decode, frame(1, b"\x06Ann"))
    asked = registry.requests
    registry.out_of_order = 500
    for _ in range(3):
        await apart(decoder.decode, frame(1, b"\x06Ann"))
        await apart(_decoder(client, "orders").decode, frame(1, b"\x06Ann"))
    assert registry.requests == asked


async def test_a_topic_full_of_foreign_records_asks_no_more_than_one_of_them(
    registry: Registry, client: RegistryClient
) -> None:
    await _filled(registry)
    decoder = _decoder(client, "orders")
    asked = []
    for _ in range(3):
        with pytest.raises(RejectedError):
            await apart(decoder.decode, frame(2, b"\x06Ann"))
        asked.append(registry.requests)
    assert asked == asked[:1] * 3


async def test_what_does_not_belong_is_asked_again_and_may_be_registered_later(
    registry: Registry, client: RegistryClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _filled(registry)
    decoder = _decoder(client, "orders")
    await registry.store.write(set_level("orders-value", "NONE"))
    for _ in range(3):
        with pytest.raises(RejectedError):
            await apart(decoder.decode, frame(2, b"\x06Ann"))
    await registry.store.write(register("orders-value", Schema(PAYEE).text))
    later = belonging.time.monotonic() + belonging.REFUSED_FOR + 1
    monkeypatch.setattr(belonging.time, "monotonic", lambda: later)
    assert (await apart(decoder.decode, frame(2, b"\x06Ann")))[1] == {"payee": "Ann"}


async def test_a_version_that_was_deleted_softly_is_still_read(registry: Registry, client: RegistryClient) -> None:
    await _filled(registry)
    await registry.store.write(delete_subject("orders-value", permanent=False))
    assert (await apart(_decoder(client, "orders").decode, frame(1, b"\x06Ann")))[1] == {"payer": "Ann"}


async def test_a_topic_that_the_registry_knows_nothing_of_judges_no_record(
    registry: Registry, client: RegistryClient
) -> None:
    await _filled(registry)
    with pytest.raises(ConfigurationError) as refused:
        await apart(_decoder(client, "invoices").decode, frame(1, b"\x06Ann"))
    assert refused.value.code == "schema.no_subject"
    assert "invoices-value" in refused.value.message
    lenient = _decoder(client, "invoices", lenient=True)
    assert (await apart(lenient.decode, frame(1, b"\x06Ann")))[1] == {"payer": "Ann"}


@pytest.mark.parametrize("number", range(1, 9))
async def test_a_first_version_that_comes_up_between_two_questions_makes_no_record_a_foreign_one(
    registry: Registry, client: RegistryClient, number: int
) -> None:
    await _filled(registry)
    answer, left = registry.watch, number

    @web.middleware
    async def meanwhile(request: web.Request, handler: Any) -> Any:
        nonlocal left
        left -= 1
        if not left:
            await registry.store.write(register("invoices-value", Schema(PAYER).text))
        return await answer(request, handler)

    registry.hook = meanwhile
    decoder = _decoder(client, "invoices")

    def outcome() -> Any:
        try:
            return decoder.decode(frame(1, b"\x06Ann"))[1]
        except (ConfigurationError, RejectedError) as error:
            return error.code

    found = await apart(outcome)
    assert found == ("schema.no_subject" if left > 0 else {"payer": "Ann"})


@pytest.mark.parametrize("pattern", ["{record}", "{topic}-{record}", "orders-value", "*"])
async def test_other_strategies_and_names_can_be_given(
    registry: Registry, client: RegistryClient, pattern: str
) -> None:
    await _filled(registry)
    for subject in ("shop.Order", "mirrored-shop.Order"):
        await registry.store.write(register(subject, Schema(PAYER).text))
    decoder = _decoder(client, "mirrored", pattern)
    assert (await apart(decoder.decode, frame(1, b"\x06Ann")))[1] == {"payer": "Ann"}


async def test_a_registry_that_can_not_be_asked_judges_no_record(registry: Registry, client: RegistryClient) -> None:
    await _filled(registry)
    await apart(client.by_id, 1)
    registry.out_of_order = 503
    with pytest.raises(RetriableError) as waits:
        await apart(_decoder(client, "orders").decode, frame(1, b"\x06Ann"))
    assert waits.value.code == "registry.unavailable"


async def test_a_registry_without_the_question_is_asked_the_other_way_round(
    registry: Registry, client: RegistryClient
) -> None:
    await _filled(registry)
    answer = registry.watch

    @web.middleware
    async def older(request: web.Request, handler: Any) -> Any:
        if request.path.endswith("/versions") and "/schemas/ids/" in request.path:
            return web.json_response({"error_code": 404, "message": "HTTP 404 Not Found"}, status=404)
        return await answer(request, handler)

    registry.hook = older
    assert (await apart(_decoder(client, "orders").decode, frame(1, b"\x06Ann")))[1] == {"payer": "Ann"}
    with pytest.raises(RejectedError) as refused:
        await apart(_decoder(client, "orders").decode, frame(2, b"\x06Ann"))
    assert refused.value.code == "record.foreign_schema"


def test_a_pattern_has_no_other_placeholder() -> None:
    assert pattern_of("{topic}-{record}") == "{topic}-{record}"
    for wrong in ("{name}-value", "{", "", " ", "a*"):
        with pytest.raises(ValueError, match=r"filled in|expected"):
            pattern_of(wrong)


def test_the_full_name_of_a_schema_is_that_of_avro() -> None:
    assert full_name({"type": "record", "name": "Order", "namespace": "shop"}) == "shop.Order"
    assert full_name({"type": "record", "name": "shop.Order", "namespace": "x"}) == "shop.Order"
    assert (full_name("string"), full_name(["null", "int"]), full_name({"type": "map"})) == ("string", "union", "map")
