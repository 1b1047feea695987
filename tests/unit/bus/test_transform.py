"""What a stream does with one record: pass, change, split, filter, refuse; all of it or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from records import ORDER, Read, Schemas

from trunkline.bus.stream.transform import (
    CompiledStep,
    FailedRecordError,
    KeepOnError,
    Output,
    Transform,
    correlation_of,
)
from trunkline.core.errors import FatalError, RejectedError
from trunkline.core.event import Event
from trunkline.core.manifests.models import Target
from trunkline.core.routing import compile_routes
from trunkline.registry.codec import Decoder, Encoder

Process = Callable[[Event], Event | list[Event] | None]
OURS: list[tuple[str, bytes | None]] = [
    ("ce_specversion", b"1.0"),
    ("ce_id", b"e1"),
    ("ce_correlationid", b"c1"),
    ("extra", b"\xff"),
]


class Work:
    """A transform with its schemas."""

    def __init__(
        self,
        *steps: Process,
        on_error: str = "dead-letter",
        targets: list[dict[str, Any]] | None = None,
        limits: Mapping[str, int] | None = None,
        output: Encoder | str | None = "same",
    ) -> None:
        self.schemas = Schemas()
        self.encoder = self.schemas.encoder(ORDER)
        found = self.encoder if output == "same" else output
        assert not isinstance(found, str)
        routes = compile_routes([Target(**target) for target in targets or [{"topic": "out"}]], ORDER, "spec")
        compiled = [CompiledStep("step", KeepOnError(step) if on_error == "pass" else step, on_error) for step in steps]
        self.transform = Transform(
            Decoder(self.schemas), compiled, routes, lambda _topic: found, limits or {}, topic_id="Tid"
        )

    def run(self, value: bytes | None, headers: list[tuple[str, bytes | None]] | None = None) -> list[Output]:
        message: Any = Read(value, b"key", OURS if headers is None else headers)
        return self.transform(message, "orders", 0, 7)[0]

    def order(self, **values: Any) -> bytes:
        return self.encoder.encode({"id": 1, "customer": "c", "amount": 1, **values})

    def values(self, outputs: list[Output]) -> list[Any]:
        return [Decoder(self.schemas).decode(output.value or b"")[1] for output in outputs]

    def refused(self, value: bytes | None) -> tuple[str, str]:
        with pytest.raises(FailedRecordError) as raised:
            self.run(value)
        return raised.value.failure.stage, raised.value.failure.code


def doubled(event: Event) -> Event:
    event.value["amount"] *= 2
    event.changed = True
    return event


def failing(event: Event) -> Event:
    event.value["amount"] = -1  # half of the work is done
    event.changed = True
    raise ValueError(f"no {event.value['id']}")


def parted(event: Event) -> list[Event]:
    return [event.copy({**event.value, "id": number}) for number in range(3)]


def test_a_value_that_no_step_changed_passes_byte_for_byte_with_its_key_and_headers() -> None:
    work = Work(lambda event: event)
    raw = work.order()
    (output,) = work.run(raw)
    assert output.value is raw
    assert output == Output("out", raw, b"key", OURS)  # type: ignore[arg-type]


def test_a_changed_value_is_encoded() -> None:
    work = Work(doubled, doubled)
    assert work.values(work.run(work.order(amount=3))) == [{"id": 1, "customer": "c", "amount": 12}]


def test_a_value_of_another_schema_is_encoded_in_that_of_the_output_topic() -> None:
    work = Work()
    other = work.schemas.encoder({**ORDER, "fields": [*ORDER["fields"], {"name": "x", "type": "int", "default": 0}]})
    mine = Work(output=other)
    mine.schemas, mine.encoder = work.schemas, work.encoder
    (output,) = mine.run(mine.order())
    assert output.value is not None
    assert int.from_bytes(output.value[1:5], "big") in {1, other.schema.id}


def test_a_topic_without_a_schema_takes_unchanged_bytes_and_no_changed_value() -> None:
    work = Work(output=None)
    raw = work.order()
    assert work.run(raw)[0].value is raw
    changed = Work(doubled, output=None)
    assert changed.refused(changed.order()) == ("ENCODE", "record.no_schema")


def test_a_filtered_record_has_no_output_and_no_later_step_sees_it() -> None:
    seen: list[Event] = []
    work = Work(lambda _event: None, lambda event: seen.append(event) or event)  # type: ignore[func-returns-value]
    assert work.run(work.order()) == []
    assert seen == []


@pytest.mark.parametrize("value", [None, b"", b"\0", b"plain text", b"\0\0\0\0\x63abc"])
def test_what_cannot_be_decoded_fails_at_decode(value: bytes | None) -> None:
    stage, code = Work().refused(value)
    assert stage == "DECODE"
    assert code.startswith("record.")


def test_a_step_that_fails_makes_a_dead_letter_with_its_name_and_reason() -> None:
    work = Work(failing)
    with pytest.raises(FailedRecordError) as raised:
        work.run(work.order())
    failure = raised.value.failure
    assert (failure.stage, failure.code, failure.reason) == ("STEP step", "step.error", "ValueError: no 1")


def test_a_step_that_refuses_a_record_keeps_its_own_code() -> None:
    def refusing(_event: Event) -> Event:
        raise RejectedError("bad", code="mine.bad")

    work = Work(refusing)
    assert work.refused(work.order()) == ("STEP step", "mine.bad")


def test_a_step_that_fails_may_drop_the_record() -> None:
    work = Work(failing, on_error="drop")
    assert work.run(work.order()) == []


def test_a_step_that_fails_may_pass_the_record_on_as_it_was() -> None:
    work = Work(failing, on_error="pass")
    raw = work.order(amount=5)
    assert work.run(raw)[0].value == raw


def test_an_error_that_is_not_the_records_fault_stops_the_stream() -> None:
    def fatal(_event: Event) -> Event:
        raise FatalError("no licence")

    work = Work(fatal)
    with pytest.raises(FatalError):
        work.run(work.order())


def test_the_parts_of_a_split_go_through_the_remaining_steps() -> None:
    work = Work(parted, doubled, lambda event: event if event.value["id"] != 1 else None)
    found = work.values(work.run(work.order(amount=4)))
    assert [(one["id"], one["amount"]) for one in found] == [(0, 8), (2, 8)]


def test_a_split_of_which_one_part_fails_has_no_output_at_all() -> None:
    def refuses_the_last(event: Event) -> Event:
        if event.value["id"] == 2:
            raise RejectedError("bad part")
        return event

    work = Work(parted, refuses_the_last)
    with pytest.raises(FailedRecordError):
        work.run(work.order())


def test_a_split_of_which_one_part_does_not_fit_the_schema_has_no_output_at_all() -> None:
    def spoils_the_last(event: Event) -> Event:
        if event.value["id"] == 2:
            event.value["amount"] = "many"
        return event

    work = Work(parted, spoils_the_last)
    stage, _ = work.refused(work.order())
    assert stage == "ENCODE"


def test_a_record_goes_to_every_target_whose_condition_holds_and_else_to_the_otherwise_one() -> None:
    targets = [
        {"topic": "large", "when": "event.amount > 10", "key": "event.customer"},
        {"topic": "even", "when": "event.amount % 2 == 0"},
        {"topic": "rest", "otherwise": True},
        {"topic": "all"},
    ]
    work = Work(targets=targets)

    def topics(amount: int) -> dict[str, bytes | None]:
        return {output.topic: output.key for output in work.run(work.order(amount=amount))}

    assert topics(12) == {"large": b"c", "even": b"key", "all": b"key"}
    assert topics(2) == {"even": b"key", "all": b"key"}
    assert topics(3) == {"rest": b"key", "all": b"key"}


def test_a_condition_that_cannot_be_computed_fails_at_the_route() -> None:
    work = Work(targets=[{"topic": "out", "when": "1 / event.amount > 0"}])
    stage, _ = work.refused(work.order(amount=0))
    assert stage == "ROUTE"


def test_a_family_takes_its_members_name_from_the_event_and_refuses_what_can_be_none() -> None:
    work = Work(targets=[{"topic": "by.*", "name": "event.customer"}])
    assert work.run(work.order(customer="acme"))[0].topic == "by.acme"
    for name in ("", "a b", "../x", "ü", "n" * 101):
        assert work.refused(work.order(customer=name)) == ("ROUTE", "route.bad_name")


def test_a_record_that_its_topic_would_not_take_is_refused_before_it_is_written() -> None:
    work = Work(limits={"out": 40_000})
    assert len(work.run(work.order(customer="c" * 20_000))) == 1
    assert work.refused(work.order(customer="c" * 40_000)) == ("ENCODE", "record.too_large")


def test_a_foreign_record_gets_an_envelope_on_its_way() -> None:
    work = Work()
    (output,) = work.run(work.order(), [("theirs", b"1")])
    names = [name for name, _ in output.headers]
    assert names[0] == "ce_specversion"
    assert {"ce_id", "ce_correlationid", "theirs"} <= set(names)


def test_the_correlation_id_is_found_wherever_it_stands() -> None:
    assert correlation_of(OURS, 2) == ("c1", 2)
    assert correlation_of(OURS, 0) == ("c1", 2)
    assert correlation_of([("a", b"")], 5) == ("", 5)
