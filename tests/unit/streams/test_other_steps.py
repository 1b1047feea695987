"""Cast, mask, flatten, split, validate and python: what their conformance suites do not show."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from pydantic import ValidationError

from streams.cast import CastStep
from streams.conversions import conversion
from streams.flatten import FlattenStep
from streams.mask import MaskStep
from streams.python import PythonStep
from streams.split import SplitStep
from streams.validate import ValidateStep
from trunkline.core.casting_scalars import MismatchError
from trunkline.core.contracts import Step, StepContext
from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event

WHERE = "flow.yaml:3: spec.steps[0]"


def record(**fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": kind} for name, kind in fields.items()]}


def prepared(
    kind: type[Step], config: Any, schema: Any = None, *, target: Any = None, folder: Path | None = None
) -> tuple[Any, Any]:
    step = kind(kind.parse(config))
    return step, step.prepare(StepContext("flow", schema, WHERE, target, folder))


def types(schema: Any) -> dict[str, Any]:
    return {field["name"]: field["type"] for field in schema["fields"]}


# --- cast ---


@pytest.mark.parametrize(
    ("form", "value", "expected"),
    [
        ("int", "-12", -12),
        ("int", 3.0, 3),
        ("long", Decimal("7.00"), 7),
        ("double", "1.5e3", 1500.0),
        ("double", 2, 2.0),
        ("string", 1.5, "1.5"),
        ("string", True, "true"),
        ("string", datetime(2013, 1, 1, 5, tzinfo=UTC), "2013-01-01T05:00:00Z"),
        ("string", date(2013, 1, 1), "2013-01-01"),
        ("string", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        ("string", b"caf\xc3\xa9", "café"),
        ("bytes", "é", b"\xc3\xa9"),
        ("boolean", "Yes", True),
        ("boolean", 0, False),
        ("date", "2013-02-28", date(2013, 2, 28)),
        ("date", datetime(2013, 1, 1, 23, tzinfo=UTC), date(2013, 1, 1)),
        ("timestamp", "2013-01-01T07:00:00+02:00", datetime(2013, 1, 1, 5, tzinfo=UTC)),
        ("timestamp", date(2013, 1, 1), datetime(2013, 1, 1, tzinfo=UTC)),
        ("timestamp(s)", 1, datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)),
        ("timestamp(us)", 1, datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC)),
        ("decimal(5, 2)", "12.30", Decimal("12.30")),
        ("decimal(5,2)", 0.1, Decimal("0.1")),
        ("decimal(5)", 12, Decimal(12)),
    ],
)
def test_a_value_is_converted(form: str, value: Any, expected: Any) -> None:
    found = conversion(form).cast(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("int", "1.0"),
        ("int", " 1"),
        ("int", 1.5),
        ("int", True),
        ("int", 2**31),
        ("long", float("inf")),
        ("double", "NaN"),
        ("double", float("nan")),
        ("boolean", "maybe"),
        ("boolean", 2),
        ("date", "28.02.2013"),
        ("date", "2013-02-30"),
        ("timestamp", "2013-01-01T07:00:00"),
        ("timestamp", 1),
        ("timestamp(s)", 10**15),
        ("decimal(3, 2)", "12.30"),
        ("decimal(5, 2)", "1.234"),
        ("decimal(5, 2)", Decimal("NaN")),
        ("string", b"\xff"),
        ("string", {"a": 1}),
    ],
)
def test_what_is_not_plainly_of_the_type_is_refused(form: str, value: Any) -> None:
    with pytest.raises(MismatchError):
        conversion(form).cast(value)


@pytest.mark.parametrize("form", ["integer", "decimal", "decimal(0)", "decimal(2,3)", "timestamp(h)", "int(3)", ""])
def test_an_unknown_type_is_refused_with_the_known_ones(form: str) -> None:
    with pytest.raises(ValidationError, match=r"decimal\("):
        CastStep.parse({"x": form})


def test_a_rejected_cast_names_the_field_and_what_it_expected() -> None:
    step, _ = prepared(CastStep, {"a.b": "int"})
    with pytest.raises(RejectedError, match=r"'a\.b'.*int.*'x'"):
        step.process(Event({"a": {"b": "x"}}))


def test_null_stays_null_and_the_type_stays_nullable() -> None:
    step, schema = prepared(CastStep, {"n": "int"}, record(n=["string", "null"]))
    assert types(schema) == {"n": ["int", "null"]}
    event = step.process(Event({"n": None}))
    assert event.value == {"n": None}
    assert not event.changed


def test_a_cast_that_can_never_succeed_is_an_error_before_anything_runs() -> None:
    with pytest.raises(ConfigurationError, match="array"):
        prepared(CastStep, {"a": "int"}, record(a={"type": "array", "items": "int"}))
    with pytest.raises(ConfigurationError, match=r"timestamp\(ms\)"):
        prepared(CastStep, {"a": "timestamp"}, record(a="long"))


# --- mask ---


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TRUNKLINE_MASK_KEY", "a key of thirty-two characters!!")
    return "a key of thirty-two characters!!"


def test_a_hash_is_the_hmac_of_the_value_and_the_type_becomes_string(key: str) -> None:
    step, schema = prepared(
        MaskStep, {"n": "hash", "b": "hash", "s": "hash"}, record(n=["null", "long"], b="bytes", s="string")
    )
    assert types(schema) == {"n": ["null", "string"], "b": "string", "s": "string"}

    def expected(raw: bytes) -> str:
        return hmac.new(key.encode(), raw, hashlib.sha256).hexdigest()

    for _ in range(2):
        found = step.process(Event({"n": 7, "b": b"\xff", "s": "é"})).value
        assert found == {"n": expected(b"7"), "b": expected(b"\xff"), "s": expected("é".encode())}


def test_without_a_key_validation_succeeds_and_the_first_record_stops_the_pipeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("TRUNKLINE_MASK_KEY", raising=False)
    step, schema = prepared(MaskStep, {"s": "hash"}, record(s="string"))
    assert schema is not None
    event = Event({"s": "plain"})
    with pytest.raises(ConfigurationError, match="TRUNKLINE_MASK_KEY") as caught:
        step.process(event)
    assert caught.value.code == "mask.no_key"
    assert not event.changed


def test_a_short_key_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRUNKLINE_MASK_KEY", "shortkey")
    with pytest.raises(ConfigurationError, match="8 characters") as caught:
        prepared(MaskStep, {"s": "hash"}, record(s="string"))
    assert "shortkey" not in str(caught.value)


def test_a_key_in_plain_text_is_refused() -> None:
    with pytest.raises(ValidationError, match="reference"):
        MaskStep.parse({"fields": {"s": "hash"}, "key": "plain text of a key here"})


@pytest.mark.parametrize(
    ("options", "value", "expected"),
    [
        ({}, "4242424242424242", "************4242"),
        ({"keep": 2, "side": "start", "cover": "x"}, "Adalbert", "Adxxxxxx"),
        ({"keep": 4}, "1234567", "*******"),
        ({"keep": 1}, "12", "*2"),
        ({"keep": 2}, 123456, "****56"),
    ],
)
def test_a_partial_mask_never_shows_more_than_half(options: Any, value: Any, expected: str) -> None:
    step, _ = prepared(MaskStep, {"fields": {"s": {"mode": "partial", **options}}})
    assert step.process(Event({"s": value})).value == {"s": expected}


@pytest.mark.parametrize("how", ["hashed", {"mode": "partial", "keep": 0}, {"mode": "redact", "keep": 1}, 3])
def test_an_unknown_mask_is_refused(how: Any) -> None:
    with pytest.raises(ValidationError):
        MaskStep.parse({"s": how})


def test_a_list_can_not_be_masked() -> None:
    with pytest.raises(ConfigurationError, match="array"):
        prepared(MaskStep, {"a": "redact"}, record(a={"type": "array", "items": "string"}))


# --- flatten ---


def test_a_record_that_may_be_null_gives_fields_that_may() -> None:
    inner = {"type": "record", "name": "I", "fields": [{"name": "b", "type": "int", "default": 1}]}
    step, schema = prepared(FlattenStep, None, record(a=["null", inner], c="int"))
    assert types(schema) == {"a_b": ["null", "int"], "c": "int"}
    assert "default" not in schema["fields"][0]
    assert step.process(Event({"a": None, "c": 1})).value == {"a_b": None, "c": 1}


def test_depth_ends_the_descent_and_a_recursive_record_needs_it() -> None:
    node = {
        "type": "record",
        "name": "Node",
        "fields": [{"name": "v", "type": "int"}, {"name": "next", "type": ["null", "Node"]}],
    }
    with pytest.raises(ConfigurationError, match="depth"):
        prepared(FlattenStep, {}, node)
    step, schema = prepared(FlattenStep, {"depth": 1}, node)
    assert [field["name"] for field in schema["fields"]] == ["v", "next_v", "next_next"]
    deepest = {"v": 3, "next": None}
    found = step.process(Event({"v": 1, "next": {"v": 2, "next": deepest}})).value
    assert found == {"v": 1, "next_v": 2, "next_next": deepest}


def test_two_fields_of_one_name_are_refused() -> None:
    inner = {"type": "record", "name": "I", "fields": [{"name": "b", "type": "int"}]}
    with pytest.raises(ConfigurationError, match="a_b"):
        prepared(FlattenStep, {}, record(a=inner, a_b="int"))


def test_a_flat_record_is_left_alone() -> None:
    schema = record(a="int")
    step, found = prepared(FlattenStep, {}, schema)
    assert found == schema
    assert not step.process(Event({"a": 1})).changed


# --- split ---


def test_parts_carry_the_envelope_and_other_headers_of_the_whole() -> None:
    step, _ = prepared(SplitStep, "items", None)
    envelope = Envelope(id="e1", source="/s", type="t", subject="x", correlation_id="c1", traceparent="00-1-2-03")
    headers = [*envelope_to_headers(envelope), ("x-tenant", b"7")]
    parts = step.process(Event({"items": [{"a": 1}, {"a": 2}]}, headers=headers, raw_key=b"k", offset=5))
    assert [part.envelope.id for part in parts] == ["e1.0", "e1.1"]
    for part in parts:
        assert part.envelope.causation_id == "e1"
        assert (part.correlation_id, part.envelope.subject, part.key) == ("c1", "x", "k")
        assert ("x-tenant", b"7") in part.headers
    [again, *_] = step.process(Event({"items": [{"a": 1}]}, headers=headers))
    assert again.headers == parts[0].headers


def test_a_part_of_a_part_names_both_places() -> None:
    step, _ = prepared(SplitStep, "items", None)
    headers = envelope_to_headers(Envelope(id="e1", source="/s", type="t"))
    [part] = step.process(Event({"items": [{"items": [{"a": 1}]}]}, headers=headers))
    [inner] = step.process(part)
    assert (inner.envelope.id, inner.envelope.causation_id) == ("e1.0.0", "e1.0")


def test_the_schema_of_a_part_is_the_elements_with_what_is_kept() -> None:
    item = {"type": "record", "name": "Item", "fields": [{"name": "sku", "type": "string"}]}
    order = record(id="string", items={"type": "array", "items": item}, tags={"type": "array", "items": "string"})
    assert prepared(SplitStep, "items", order)[1] == item
    kept = prepared(SplitStep, {"field": "items", "keep": ["id"]}, order)[1]
    assert (kept["name"], list(types(kept))) == ("Item_flow", ["id", "sku"])
    assert types(prepared(SplitStep, {"field": "tags", "into": "tag"}, order)[1]) == {"tag": "string"}


def test_a_map_in_a_list_is_a_value_and_no_record() -> None:
    schema = record(items={"type": "array", "items": {"type": "map", "values": "int"}})
    step, found = prepared(SplitStep, {"field": "items", "into": "one"}, schema)
    assert types(found) == {"one": {"type": "map", "values": "int"}}
    assert [part.value for part in step.process(Event({"items": [{"a": 1}]}))] == [{"one": {"a": 1}}]


@pytest.mark.parametrize("config", ["id", {"field": "items", "keep": ["sku"]}, {"field": "items", "keep": ["idd"]}])
def test_a_split_that_can_not_be_is_an_error_before_anything_runs(config: Any) -> None:
    item = {"type": "record", "name": "Item", "fields": [{"name": "sku", "type": "string"}]}
    with pytest.raises(ConfigurationError):
        prepared(SplitStep, config, record(id="string", sku="string", items={"type": "array", "items": item}))


# --- validate ---


def test_a_schema_is_read_from_beside_the_manifest_and_a_missing_field_is_named(tmp_path: Path) -> None:
    (tmp_path / "strict.avsc").write_text(json.dumps(record(a="int", b="string")), encoding="utf-8")
    step, _ = prepared(ValidateStep, {"schema": "strict.avsc"}, folder=tmp_path)
    event = Event({"a": 1, "b": "x"})
    assert step.process(event) is event
    bad = {"'b' is missing": {"a": 1}, "'R.a' is str": {"a": "1", "b": "x"}, "no field 'c'": {"a": 1, "b": "x", "c": 1}}
    for complaint, value in bad.items():
        with pytest.raises(RejectedError, match=complaint):
            step.process(Event(value))


def test_the_reason_does_not_quote_the_value() -> None:
    step, _ = prepared(ValidateStep, {"schema": record(card="int")})
    with pytest.raises(RejectedError, match="card") as caught:
        step.process(Event({"card": "4242424242424242"}))
    assert "4242" not in str(caught.value)


@pytest.mark.parametrize("schema", ["missing.avsc", {"type": "nonsense"}])
def test_a_schema_that_can_not_be_used_is_an_error_before_anything_runs(schema: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="schema"):
        prepared(ValidateStep, {"schema": schema}, folder=tmp_path)


# --- python ---


def written(folder: Path, text: str, name: str = "work.py") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder


def test_two_folders_may_have_a_module_of_one_name(tmp_path: Path) -> None:
    results = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        written(folder, f"def f(value):\n    return {{'who': {name!r}}}\n")
        step, _ = prepared(PythonStep, "work:f", folder=folder)
        results.append(step.process(Event({})).value)
    assert results == [{"who": "a"}, {"who": "b"}]


def test_a_module_that_was_changed_is_read_anew(tmp_path: Path) -> None:
    for number in (1, 2):
        written(tmp_path, f"def f(value):\n    return {{'n': {number}}}\n")
        step, _ = prepared(PythonStep, "work:f", folder=tmp_path)
        assert step.process(Event({})).value == {"n": number}


def test_the_module_may_import_what_stands_beside_it(tmp_path: Path) -> None:
    written(tmp_path, "FACTOR = 3\n", "factors_of_this_test.py")
    written(
        tmp_path, "from factors_of_this_test import FACTOR\n\ndef f(value):\n    return {'n': value['n'] * FACTOR}\n"
    )
    step, _ = prepared(PythonStep, "work:f", folder=tmp_path)
    assert step.process(Event({"n": 2})).value == {"n": 6}


def test_one_dict_returned_twice_becomes_two_values(tmp_path: Path) -> None:
    written(tmp_path, "def f(value):\n    return [value, value]\n")
    step, _ = prepared(PythonStep, "work:f", folder=tmp_path)
    first, second = step.process(Event({"n": 1}))
    first.value["n"] = 2
    assert second.value == {"n": 1}


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ("no_such_module_here:f", "no module"),
        ("work:g", "did you mean"),
        ("work:later", "coroutine"),
        ("work:three", "one or two"),
        ("broken:f", "SyntaxError"),
    ],
)
def test_a_function_that_can_not_be_called_is_an_error_before_anything_runs(
    call: str, complaint: str, tmp_path: Path
) -> None:
    written(
        tmp_path, "def gg(v):\n    return v\nasync def later(v):\n    return v\ndef three(a, b, c):\n    return a\n"
    )
    written(tmp_path, "def f(:\n", "broken.py")
    with pytest.raises(ConfigurationError, match=complaint):
        prepared(PythonStep, call, folder=tmp_path)


def test_the_declared_schema_is_checked_against_the_target(tmp_path: Path) -> None:
    written(tmp_path, "def f(value):\n    return value\n")
    with pytest.raises(ConfigurationError, match="no field 'a'"):
        prepared(PythonStep, {"call": "work:f", "schema": record(a="int")}, target=record(b="int"), folder=tmp_path)
