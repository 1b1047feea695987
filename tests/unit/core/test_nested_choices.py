"""Unions of records inside unions of records: each value is looked at a bounded number of times, however deep it is."""

from __future__ import annotations

import io
from typing import Any

import fastavro
import pytest
from fastavro.validation import validate
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.validate import ValidateStep
from trunkline.core.avro.choices import has_nested_choices
from trunkline.core.avro.fitting import Fitting
from trunkline.core.casting import compile_caster
from trunkline.core.casting_scalars import MismatchError, shown
from trunkline.core.contracts import StepContext
from trunkline.core.errors import RejectedError
from trunkline.core.event import Event
from trunkline.core.formats import render
from trunkline.core.formats.settings import AvroFormat

DEPTH = 60
"""2^60 tries, where each level is tried anew."""


class Counted(dict[str, Any]):
    """An object that counts how often a field of any such object is asked for, and has enough at some point."""

    asked = 0
    most = 0

    def get(self, *arguments: Any) -> Any:
        Counted.asked += 1
        if Counted.asked > Counted.most:
            raise BaseException(f"asked more than {Counted.most} times")  # noqa: TRY002 (nothing may catch it)
        return super().get(*arguments)


def tree(a: str, b: str, *, next_first: bool) -> dict[str, Any]:
    """Two records that hold each other; they differ in the type of `x` alone."""

    def record(name: str, kind: str, following: Any) -> dict[str, Any]:
        fields = [{"name": "next", "type": following, "default": None}, {"name": "x", "type": kind}]
        return {"type": "record", "name": name, "fields": fields if next_first else fields[::-1]}

    inner = record("B", b, ["null", "A", "B"])
    outer = record("A", a, ["null", "A", inner])
    return {"type": "record", "name": "Root", "fields": [{"name": "u", "type": ["null", outer, "B"]}]}


def nested(levels: int, x: Any, bottom: Any) -> dict[str, Any]:
    value = Counted(x=bottom, next=None)
    for _ in range(levels):
        value = Counted(x=x, next=value)
    return Counted(u=value)


class Written:
    """The schema that an event was written with."""

    id, name = 1, "Root"

    def __init__(self, schema: Any) -> None:
        self.json = schema


def counting(levels: int) -> None:
    """From here on, each of so many objects may be asked a few times."""
    Counted.asked, Counted.most = 0, 20 * levels


HOSTILE = [
    pytest.param(tree("int", "int", next_first=True), 1, "no number", False, id="wrong at the bottom"),
    pytest.param(tree("int", "int", next_first=False), 1, "no number", False, id="wrong at the bottom, last field"),
    pytest.param(tree("int", "string", next_first=True), "s", "s", True, id="always the second branch"),
    pytest.param(tree("int", "string", next_first=False), "s", 5.5, False, id="neither at the bottom"),
]


@pytest.mark.parametrize(("schema", "x", "bottom", "good"), HOSTILE)
def test_a_cast_looks_at_each_value_a_few_times(schema: Any, x: Any, bottom: Any, good: bool) -> None:
    caster = compile_caster(schema, values="json")
    value = nested(DEPTH, x, bottom)
    counting(DEPTH)
    if good:
        assert caster(value) == value
        return
    with pytest.raises(RejectedError) as refused:
        caster(value)
    assert refused.value.code == "record.cast"
    assert refused.value.message.startswith("field 'u': expected ")
    assert len(refused.value.message) < 250


def test_nothing_of_one_row_is_kept_for_the_next() -> None:
    caster = compile_caster(tree("int", "string", next_first=True), values="json")
    value = {"u": {"x": 5.5, "next": None}}
    with pytest.raises(RejectedError):
        caster(value)
    value["u"]["x"] = "now a text"  # type: ignore[index]
    assert caster(value) == value


@pytest.mark.parametrize(("schema", "x", "bottom", "good"), HOSTILE)
def test_the_validate_step_looks_at_each_value_a_few_times(schema: Any, x: Any, bottom: Any, good: bool) -> None:
    step = ValidateStep(ValidateStep.parse({"schema": schema}))
    step.prepare(StepContext("flow", None, "flow.yaml:3", None, None))
    event = Event(nested(DEPTH, x, bottom))
    counting(DEPTH)
    if good:
        assert step.process(event) is event
        return
    with pytest.raises(RejectedError, match="field 'u': expected null or A or B, found Counted") as refused:
        step.process(event)
    assert refused.value.code == "record.invalid"


@pytest.mark.parametrize(("schema", "x", "bottom", "good"), HOSTILE)
def test_an_avro_file_is_written_with_a_few_looks_at_each_value(schema: Any, x: Any, bottom: Any, good: bool) -> None:
    event = Event(nested(DEPTH, x, bottom), schema=Written(schema))
    counting(DEPTH)
    made = render([event], AvroFormat(), "r")
    if good:
        assert list(fastavro.reader(io.BytesIO(made.content))) == [event.value]
        return
    assert made.rejected[0].code == "file.bad_datum"
    assert "field 'u': expected null or A or B" in made.rejected[0].message


@given(
    st.sampled_from([one.values[0] for one in HOSTILE]),
    st.recursive(
        st.none(),
        lambda inner: st.fixed_dictionaries({}, optional={"x": st.sampled_from([1, "s", 2.5, None]), "next": inner}),
        max_leaves=6,
    ),
)
@settings(max_examples=100, deadline=None)
def test_branches_are_those_that_fastavro_takes(schema: Any, value: Any) -> None:
    parsed, fitting = fastavro.parse_schema(schema, _force=True), Fitting(fastavro.parse_schema(schema, _force=True))
    datum = {"u": value}
    expected, found = io.BytesIO(), io.BytesIO()
    if validate(datum, parsed, raise_errors=False):
        fastavro.schemaless_writer(expected, parsed, datum)
        fastavro.schemaless_writer(found, parsed, fitting.with_branches(datum, whole=True))
        assert found.getvalue() == expected.getvalue()
    else:
        with pytest.raises(MismatchError):
            fitting.with_branches(datum, whole=True)


@pytest.mark.parametrize(
    ("kind", "nested_choices"),
    [
        ("string", False),
        (["null", "int", "string"], False),
        (["null", {"type": "map", "values": "int"}, {"type": "array", "items": "int"}], False),
        ([{"type": "record", "name": "P", "fields": []}, {"type": "record", "name": "Q", "fields": []}], False),
        (
            [
                {"type": "record", "name": "P", "fields": [{"name": "in", "type": ["P", "Q", "null"]}]},
                {"type": "record", "name": "Q", "fields": []},
            ],
            True,
        ),
        (
            [
                {"type": "record", "namespace": "n", "name": "P", "fields": [{"name": "in", "type": "P"}]},
                {"type": "map", "values": {"type": "array", "items": ["n.P", {"type": "map", "values": "int"}]}},
            ],
            True,
        ),
        ([{"type": "array", "items": {"type": "record", "name": "P", "fields": []}}, "P", "null"], False),
        ({"type": {"type": ["null", "unknown.Name"]}}, False),
    ],
)
def test_nested_choices_are_seen_and_nothing_else_is(kind: Any, nested_choices: bool) -> None:
    assert (
        has_nested_choices({"type": "record", "name": "R", "fields": [{"name": "x", "type": kind}]}) is nested_choices
    )


def test_what_was_found_is_shown_by_its_beginning_alone() -> None:
    class Endless(dict[str, Any]):
        def __repr__(self) -> str:
            raise AssertionError("its whole text was made")

    assert len(shown({"a": [{"b": "x" * 10**6}] * 10**6})) < 70
    assert len(shown([Endless()] * 3)) < 70
