"""What judging a schema costs, in steps: near to linear where that can be, and refused with a reason where it can't."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trunkline.core.avro.faults import faults_of_schema
from trunkline.registry.candidate import Judgement
from trunkline.registry.compatibility import MAX_REASONS, incompatibilities
from trunkline.registry.errors import RegistryError
from trunkline.registry.model import MAX_NESTING, parse_type
from trunkline.registry.references import MAX_REFERENCES, resolved
from trunkline.registry.rules import register
from trunkline.registry.schema import Schema
from trunkline.registry.schema_error import SchemaError, TooCostlyError
from trunkline.registry.source_json import MAX_JSON_NESTING
from trunkline.registry.state import Reference, State
from trunkline.registry.steps import MAX_STEPS, Steps

from .naive import can_read
from .sources import record


def of_names(*definitions: Any) -> Any:
    """A record with a field for each definition, so that each may use the names before it."""
    return record(*((f"k{index}", each) for index, each in enumerate(definitions)), name="Root")


def taken(reader: Any, writer: Any) -> int:
    """The steps of comparing two schemas."""
    steps = Steps()
    incompatibilities(parse_type(reader), parse_type(writer), steps)
    return steps.taken


def parsed(source: Any) -> int:
    steps = Steps()
    parse_type(source, steps=steps)
    return steps.taken


# --- honest schemas that are large ---


def union(count: int, kind: str = "int") -> list[Any]:
    return [record(("a", kind), ("b", ["null", "string"], None), name=f"ns.Rec{index}") for index in range(count)]


def fields(count: int, kind: str = "int") -> Any:
    return record(*((f"f{index}", kind) for index in range(count)))


def renamed(count: int) -> Any:
    return record(*({"name": f"g{index}", "type": "int", "aliases": [f"f{index}"]} for index in range(count)))


def enum(count: int, letter: str = "S", **more: Any) -> Any:
    return {"type": "enum", "name": "E", "symbols": [f"{letter}{index}" for index in range(count)], **more}


def chain(count: int) -> Any:
    """Records of which each uses the one before, none inside another."""
    return of_names(record(("x", "int"), name="R0"), *(record(("x", f"R{n}"), name=f"R{n + 1}") for n in range(count)))


def diamonds(count: int, leaf: str = "int") -> Any:
    """Records of which each uses the one before twice: 2 ** count ways lead to the first."""
    return of_names(
        record(("x", leaf), name="R0"),
        *(record(("a", f"R{n}"), ("b", f"R{n}"), name=f"R{n + 1}") for n in range(count)),
    )


@pytest.mark.parametrize(
    ("made", "changed"),
    [
        pytest.param(union, union, id="union"),
        pytest.param(union, lambda count: union(count, "long"), id="union of changed records"),
        pytest.param(lambda count: union(count, "string"), union, id="union of records that all break"),
        pytest.param(fields, lambda count: fields(count, "long"), id="fields"),
        pytest.param(fields, renamed, id="fields by alias"),
        pytest.param(enum, enum, id="enum"),
        pytest.param(enum, lambda count: enum(count, "T"), id="enum of other symbols"),
        pytest.param(chain, chain, id="chain"),
        pytest.param(diamonds, diamonds, id="diamonds"),
        pytest.param(diamonds, lambda count: diamonds(count, "string"), id="diamonds that break"),
    ],
)
def test_comparing_twice_as_much_takes_twice_the_steps(made: Any, changed: Any) -> None:
    small, large = 40, 80
    assert taken(changed(large), made(large)) <= 2.2 * taken(changed(small), made(small))
    assert parsed(made(large)) <= 2.2 * parsed(made(small))


def test_a_union_of_6000_records_is_read_and_compared_within_the_bound() -> None:
    source = union(6000)
    assert len(json.dumps(source)) > 700_000
    steps = Steps()
    node = parse_type(source, steps=steps)
    assert incompatibilities(node, node, steps) == []
    assert steps.taken < MAX_STEPS / 2


def test_each_break_of_a_shared_record_is_told_once_and_at_most_a_number_of_them() -> None:
    found = incompatibilities(parse_type(diamonds(30, "string")), parse_type(diamonds(30)))
    assert [str(each.path) for each in found] == ["/fields/0/type/fields/0/type"]
    everything = incompatibilities(parse_type(union(500, "string")), parse_type(union(500)))
    assert len(everything) == MAX_REASONS


# --- the fast way against the plain one ---

NAMES = ["a.R", "b.R", "c.S", "c.T"]


@st.composite
def entangled(draw: st.DrawFn) -> Any:
    """A union of small records that use each other, themselves, and the records around them."""
    order = draw(st.permutations(NAMES))
    known: list[str] = []

    def kind(depth: int) -> Any:
        plain = draw(st.sampled_from(["int", "long", "string", *known]))
        if depth == 0:
            return plain
        others = [each for each in [*known, "null", "int"] if draw(st.booleans())]
        form = draw(st.sampled_from(["plain", "union", "array"]))
        return {"plain": plain, "union": others, "array": {"type": "array", "items": kind(0)}}[form]

    def one(name: str, below: list[str]) -> Any:
        known.append(name)
        made: dict[str, Any] = {"type": "record", "name": name, "fields": []}
        if draw(st.booleans()):
            made["aliases"] = [draw(st.sampled_from(NAMES))]
        if below and draw(st.booleans()):
            made["fields"].append({"name": "in", "type": one(below.pop(), below)})
        for letter in "xy":
            if draw(st.booleans()):
                made["fields"].append({"name": letter, "type": kind(1)})
        return made

    waiting = list(order)
    branches = []
    while waiting:
        branches.append(one(waiting.pop(), waiting))
    return branches


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(entangled(), entangled())
def test_the_fast_comparison_says_what_the_plain_one_says(reader: Any, writer: Any) -> None:
    left, right = parse_type(reader), parse_type(writer)
    assert (incompatibilities(left, right) == []) == can_read(left, right)


# --- hostile ones ---


def nested(levels: int, inner: Any) -> Any:
    for _ in range(levels):
        inner = {"f": inner}
    return inner


def unions_in_unions(count: int) -> Any:
    names = [f"R{index}" for index in range(count)]
    return [record(("f", ["null", *names[: index + 1]]), name=name) for index, name in enumerate(names)]


def same_short_names(count: int, space: str) -> Any:
    return [record((f"f{index}", "int"), name=f"{space}{index}.R") for index in range(count)]


def doubling_defaults(levels: int) -> Any:
    return of_names(
        record(("x", "int", 0), name="R0"),
        *(record(("a", f"R{n}", {}), ("b", f"R{n}", {}), name=f"R{n + 1}") for n in range(levels)),
    )


TOO_COSTLY = {
    "a default that fits none of many unions": record(("all", unions_in_unions(60), nested(50, "bad"))),
    "a long namespace that many types have": {
        **record(*((f"i{n}", record(name=f"I{n}")) for n in range(500)), name="R"),
        "namespace": "n" * 20_000,
    },
    "a long name that many fields use": {
        **record(("x", record(name="I")), *((f"i{n}", "I") for n in range(2000)), name="R"),
        "namespace": "n" * 10_000,
    },
    "aliases in a long namespace": {
        **record(name="R"),
        "namespace": "n" * 10_000,
        "aliases": [f"a{n}" for n in range(900)],
    },
}
REFUSED = {
    "a default that doubles at each level": (doubling_defaults(40), "stands for more than"),
    "a default that holds itself": (
        record(("i", record(("o", "Root", {}), name="I"), {}), name="Root"),
        "stands for itself",
    ),
    "a default that is nested too deep": (
        record(("x", record(("f", ["null", "T"], None), name="T"), nested(100, None)), name="R"),
        "nested more than",
    ),
    "types that reach too deep by names": (chain(MAX_NESTING + 5)["fields"][::-1], "not defined|nested"),
    "an attribute that is nested too deep": ({"type": "int", "x": nested(MAX_JSON_NESTING + 1, 1)}, "nested more than"),
    "a size of many digits": ({"type": "fixed", "name": "F", "size": 1 << 40_000}, "bits"),
    "a default of many digits": (record(("x", "long", 1 << 40_000)), "bits"),
    "a default beyond all doubles": (record(("x", "double", 10**400)), "does not match"),
    "infinity": (record(("x", "double", float("inf"))), "too large"),
    "half a letter": ({"type": "int", "doc": "\ud800"}, "surrogate"),
    "a key that is no text": ({"type": "int", 5: 6}, "no text"),
    "a decimal of a thousand million digits": (
        {"type": "bytes", "logicalType": "decimal", "precision": 10**9, "scale": 10**9},
        "not possible",
    ),
    "a decimal as large as memory": (
        {"type": "fixed", "name": "F", "size": 2**31 - 1, "logicalType": "decimal", "precision": 600_000_000},
        "not possible",
    ),
}  # fmt: skip


@pytest.mark.parametrize("source", TOO_COSTLY.values(), ids=TOO_COSTLY.keys())
def test_a_schema_that_costs_too_much_is_refused(source: Any) -> None:
    steps = Steps(100_000)
    with pytest.raises(TooCostlyError, match="more than 100000 steps"):
        Schema(source, steps=steps)


@pytest.mark.parametrize(("source", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_would_cost_its_readers_too_much_is_refused_in_few_steps(source: Any, said: str) -> None:
    steps = Steps(200_000)
    with pytest.raises(SchemaError, match=said) as refused:
        Schema(source, steps=steps)
    assert not isinstance(refused.value, TooCostlyError)


def test_readers_refuse_it_as_well() -> None:
    for source, said in (doubling_defaults(40), "stands for more"), (record(("x", "int", 1 << 40_000)), "bits"):
        with pytest.raises(SchemaError, match=said):
            Schema(source, strict=False)


def test_types_that_reach_too_deep_by_the_names_of_references_are_refused() -> None:
    references = [record(("x", "int"), name="R0"), *(record(("x", f"R{n}"), name=f"R{n + 1}") for n in range(200))]
    assert Schema("R49", references=references).json["name"] == "R49"
    with pytest.raises(SchemaError, match=f"nested more than {MAX_NESTING}"):
        Schema("R150", references=references)


def test_comparing_what_has_one_name_in_many_namespaces_is_given_up() -> None:
    left, right = parse_type(same_short_names(400, "a")), parse_type(same_short_names(400, "b"))
    with pytest.raises(TooCostlyError):
        incompatibilities(left, right, Steps(100_000))


def test_json_that_python_takes_and_nobody_else_is_refused() -> None:
    for text in ('{"type":"record","name":"R","fields":[{"name":"x","type":"double","default":NaN}]}', "[-Infinity]"):
        with pytest.raises(SchemaError, match="no JSON"):
            Schema(text)
    with pytest.raises(SchemaError, match="no JSON"):
        Schema('{"type":"fixed","name":"F","size":' + "9" * 900_000 + "}")


def test_a_message_names_the_beginning_of_what_is_long() -> None:
    long = "x" * 100_000
    for source in [long, record(("a", "int", long)), ["int", long], record((f"{long}-", "int"))]:
        with pytest.raises(SchemaError) as refused:
            Schema(source)
        assert len(str(refused.value)) < 3000
    with pytest.raises(RegistryError) as told:
        Judgement({"schema": json.dumps(record(("a", long)))}).candidate(State())
    assert len(told.value.message) < 3000


# --- references ---


def registered(*schemas: tuple[Any, list[int]]) -> State:
    """A state with these schemas as the first versions of the subjects 0, 1, …; each refers to subjects by their numbers."""
    state = State()
    for index, (source, refers) in enumerate(schemas):
        references = [{"name": f"R{number}", "subject": str(number), "version": 1} for number in refers]
        records, _ = register(str(index), json.dumps(source), None, references)(state)
        for each in records:
            state.apply(*each.encoded())
    return state


def test_references_that_meet_again_are_read_once() -> None:
    levels = 40
    state = registered(
        (record(("x", "int"), name="R0"), []),
        (record(("a", "R0"), name="R1"), [0]),
        *((record(("a", f"R{n - 1}"), ("b", f"R{n - 2}"), name=f"R{n}"), [n - 1, n - 2]) for n in range(2, levels)),
    )
    found = resolved(state, [Reference("R", str(levels - 1), 1), Reference("R", str(levels - 2), 1)])
    assert [int(each.subject) for each in found] == list(range(levels))


def test_a_normalised_schema_may_refer_to_what_refers_to_others() -> None:
    state = registered(
        (record(("x", "int"), name="R0"), []), (record(("a", "R0"), name="R1"), [0]), (record(name="R2"), [])
    )
    body = {"schema": json.dumps(record(("x", "R1"))), "references": [{"name": "R1", "subject": "1", "version": 1}]}
    text = Judgement(body, normalize=True).candidate(state).key.text
    assert json.loads(text)["fields"] == [{"name": "x", "type": "R1"}]


def test_too_many_references_are_refused() -> None:
    one = {"name": "R", "subject": "0", "version": 1}
    with pytest.raises(RegistryError, match=f"more than {MAX_REFERENCES} references"):
        Judgement({"schema": '"int"', "references": [one] * (MAX_REFERENCES + 1)})


def test_many_versions_under_a_transitive_level_are_bounded_together() -> None:
    state = registered()
    for number in range(12):
        source = {**fields(500), "doc": f"version {number}"}
        for each in register("s", json.dumps(source))(state)[0]:
            state.apply(*each.encoded())
    versions = state.versions("s")
    body = {"schema": json.dumps({**fields(500), "doc": "another"})}
    alone, together = Judgement(body), Judgement(body)
    alone.incompatible(state, "BACKWARD", versions)
    together.incompatible(state, "FULL_TRANSITIVE", versions)
    assert together.steps.taken > 10 * (alone.steps.taken - parsed(fields(500)))
    tight = Judgement(body, steps=Steps(together.steps.taken - 1))
    with pytest.raises(RegistryError, match="Invalid schema: judging the schema takes more than") as refused:
        tight.incompatible(state, "FULL_TRANSITIVE", versions)
    assert (refused.value.status, tight.hopeless) == (422, True)


# --- manifests ---


def test_of_many_names_that_are_unknown_some_are_told() -> None:
    schema = record(*((f"f{n}", f"Unknown{n}") for n in range(5000)))
    assert len(list(faults_of_schema(schema))) == 100
