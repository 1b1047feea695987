"""Publishing: what a source found becomes records with an envelope, or is kept with the reason."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from records import ORDER, Schemas

from trunkline.bus.names import Names
from trunkline.bus.source.publish import Published, Publisher
from trunkline.core.casting import compile_caster
from trunkline.core.contracts import RejectedInput, SourceEvent
from trunkline.core.manifests.models import Target
from trunkline.core.routing import compile_routes
from trunkline.registry.codec import Decoder


class Door:
    """A publisher with its schemas."""

    def __init__(self, *targets: dict[str, Any], limit: int = 1_000_000) -> None:
        self.schemas = Schemas()
        encoder = self.schemas.encoder(ORDER)
        caster = compile_caster(ORDER, extra_columns="refuse", values="text")
        self.asked: list[str] = []

        def encoder_of(topic: str) -> Any:
            self.asked.append(topic)
            return encoder if topic != "untyped" else None

        found = list(targets) or [{"topic": "orders"}]
        self.publisher = Publisher(
            Names("acme"),
            "shop",
            "w1",
            "file",
            compile_routes([Target(**target) for target in found], ORDER, "spec"),
            encoder_of,
            lambda _topic: caster,
            dict.fromkeys(("orders", "large", "rest"), limit),
        )

    def publish(self, **values: Any) -> Published:
        event = {"value": {"id": "7", "customer": "c", "amount": "3"}, **values}
        return self.publisher.publish(SourceEvent(**event))

    def value(self, published: Published) -> Any:
        return Decoder(self.schemas).decode(published.outputs[0].value or b"")[1]


def test_an_event_becomes_a_typed_record_with_the_envelope_in_its_headers() -> None:
    door = Door()
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=2)))
    found = door.publish(id="e1", time=moment, key="k", subject="s", correlation_id="c1", type="t")
    (output,) = found.outputs
    assert (output.topic, output.key, found.outcome, found.correlation_id) == ("orders", b"k", "delivered", "c1")
    assert door.value(found) == {"id": 7, "customer": "c", "amount": 3}
    assert dict(output.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": b"e1",
        "ce_source": b"/acme/shop",
        "ce_type": b"t",
        "ce_time": b"2026-01-02T01:04:05Z",
        "ce_subject": b"s",
        "ce_correlationid": b"c1",
        "content-type": b"application/avro",
    }


def test_an_event_without_ids_gets_them_and_a_time() -> None:
    door = Door()
    first, second = dict(door.publish().outputs[0].headers), dict(door.publish().outputs[0].headers)
    assert first["ce_id"] != second["ce_id"]
    assert first["ce_correlationid"] != second["ce_correlationid"]
    assert datetime.fromisoformat(first["ce_time"].decode()) <= datetime.now(UTC)
    assert first["ce_type"] == b"trunkline.file"


def test_targets_and_keys_see_typed_values() -> None:
    door = Door({"topic": "large", "when": "event.amount > 2", "key": "event.id"}, {"topic": "rest", "otherwise": True})
    (output,) = door.publish().outputs
    assert (output.topic, output.key) == ("large", b"7")
    (output,) = door.publish(value={"id": "7", "customer": "c", "amount": "1"}, key="k").outputs
    assert (output.topic, output.key) == ("rest", b"k")


def test_an_event_that_no_target_takes_is_filtered() -> None:
    found = Door({"topic": "large", "when": "event.amount > 100"}).publish()
    assert (found.outcome, list(found.outputs)) == ("filtered", [])


def test_a_family_with_a_key_asks_for_no_topic_but_its_members() -> None:
    door = Door({"topic": "by.*", "name": "event.customer", "key": "event.id"})
    assert [output.topic for output in door.publish().outputs] == ["by.c"]
    assert set(door.asked) == {"by.c"}


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"id": "seven", "customer": "c"}, ""),
        ({"customer": "c"}, ""),
        ({"id": "7", "customer": "c", "colour": "red"}, ""),
        ({"id": "7", "customer": "c" * 5000}, "record.too_large"),
    ],
)
def test_what_does_not_fit_is_kept_in_quarantine_with_reason_and_place(value: dict[str, str], code: str) -> None:
    found = Door(limit=4000).publish(value=value, raw=b"as it came", place="orders.csv:3", correlation_id="c1")
    (output,) = found.outputs
    headers = dict(output.headers)
    assert (output.topic, output.value, found.outcome, found.correlation_id) == (
        "acme.shop.dlq",
        b"as it came",
        "dead",
        "c1",
    )
    assert headers["trunkline.place"] == b"orders.csv:3"
    assert headers["ce_correlationid"] == b"c1"
    assert headers["__connect.errors.connector.name"] == b"shop"
    assert found.detail is not None
    assert found.detail.startswith("orders.csv:3: ")
    assert code in headers["__connect.errors.exception.class.name"].decode()


def test_a_value_without_raw_bytes_is_kept_as_json() -> None:
    found = Door().publish(value={"id": "x"})
    assert json.loads(found.outputs[0].value or b"") == {"id": "x"}


def test_a_topic_without_a_schema_takes_nothing() -> None:
    found = Door({"topic": "untyped"}).publish()
    assert found.outcome == "dead"
    assert dict(found.outputs[0].headers)["__connect.errors.exception.class.name"] == b"record.no_schema"


@pytest.mark.parametrize("field", ["key", "subject", "id", "source", "type"])
def test_text_that_utf8_cannot_hold_is_kept_and_does_not_stop_the_source(field: str) -> None:
    found = Door().publish(**{field: "\ud800"}, raw=b"as it came")
    (output,) = found.outputs
    assert (output.topic, output.value, found.outcome) == ("acme.shop.dlq", b"as it came", "dead")


def test_input_that_is_no_event_is_kept_raw() -> None:
    found = Door().publisher.quarantine(RejectedInput(b"\xff\x00", "no JSON", "line 9", "c1"))
    (output,) = found.outputs
    headers = dict(output.headers)
    assert (output.topic, output.value, found.outcome) == ("acme.shop.dlq", b"\xff\x00", "dead")
    assert headers["__connect.errors.exception.message"] == b"no JSON"
    assert headers["trunkline.place"] == b"line 9"
    assert headers["ce_correlationid"] == b"c1"
    assert "content-type" not in headers
