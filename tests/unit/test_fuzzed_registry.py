"""Whatever is registered: a schema, or a refusal in words; judged against any other at a bounded cost, and read back as it was."""

from __future__ import annotations

import json
from typing import Any

from fuzzing import FUZZ, STEPS, is_short
from hypothesis import given
from hypothesis import strategies as st

from tests.steps import bounded_steps
from trunkline.registry.canonical import canonical_text
from trunkline.registry.compatibility import incompatibilities
from trunkline.registry.schema import Schema
from trunkline.registry.schema_error import SchemaError

NAMES = st.sampled_from(["A", "B", "a.A", "a.b.A", "int", "", "1a", "é", ".A", "A.", "a..b", "null", "x" * 300])
LITERALS = (
    st.none()
    | st.booleans()
    | st.sampled_from(
        [0, -1, 1, 2**31, -(2**63) - 1, 10**400, 1.5, 1e308, float("inf"), float("nan"), "", "A", "\ud800"]
    )
    | st.just({})
    | st.just([])
)
TYPES = st.sampled_from(
    ["null", "boolean", "int", "long", "float", "double", "bytes", "string", "A", "B", "a.A", "record", "?"]
)
EXTRAS = st.fixed_dictionaries(
    {},
    optional={
        "logicalType": st.sampled_from(["decimal", "date", "timestamp-micros", "uuid", "duration", "?", 1]),
        "precision": LITERALS,
        "scale": LITERALS,
        "size": st.sampled_from([0, 1, -1, 12, 16, 2**31 - 1, "1", None]),
        "doc": st.sampled_from(["", "x" * 400, 1]),
        "aliases": st.lists(NAMES, max_size=3) | LITERALS,
        "namespace": NAMES | LITERALS,
        "default": LITERALS,
        "order": st.sampled_from(["ascending", "up", 1]),
    },
)


def _with_extras(made: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.builds(lambda one, extras: {**extras, **one}, made, EXTRAS)


def _larger(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    field = _with_extras(st.fixed_dictionaries({"name": NAMES, "type": inner}))
    return (
        st.lists(inner, max_size=4)
        | _with_extras(st.fixed_dictionaries({"type": inner}))
        | _with_extras(st.fixed_dictionaries({"type": st.just("array"), "items": inner}))
        | _with_extras(st.fixed_dictionaries({"type": st.just("map"), "values": inner}))
        | _with_extras(
            st.fixed_dictionaries(
                {
                    "type": st.sampled_from(["record", "error"]),
                    "name": NAMES,
                    "fields": st.lists(field, max_size=4) | inner,
                }
            )
        )
        | _with_extras(
            st.fixed_dictionaries(
                {"type": st.just("enum"), "name": NAMES, "symbols": st.lists(NAMES, max_size=4) | LITERALS}
            )
        )
        | _with_extras(st.fixed_dictionaries({"type": st.just("fixed"), "name": NAMES}))
    )


SCHEMAS = st.recursive(TYPES | LITERALS, _larger, max_leaves=20)
CHANGES = st.sampled_from(['"', "{", "}", "[", "]", ",", ":", "null", "int", "A", "9" * 50, "\\ud800", "\x00", " "])


@given(SCHEMAS, SCHEMAS)
@FUZZ
def test_any_two_schemas_are_refused_or_compared_and_keep_their_meaning(one: Any, other: Any) -> None:
    read = [schema for schema in (_read(one), _read(other)) if schema is not None]
    with bounded_steps(STEPS):
        for reader in read:
            again = Schema(canonical_text(reader.json))
            assert not incompatibilities(again.type, reader.type)
            for writer in read:
                for reason in incompatibilities(reader.type, writer.type):
                    is_short(reason)


@given(SCHEMAS, st.integers(0, 400), CHANGES)
@FUZZ
def test_a_damaged_text_is_a_schema_or_refused(source: Any, at: int, noise: str) -> None:
    text = json.dumps(source)
    _read(text[:at] + noise + text[at:])


def _read(source: Any) -> Schema | None:
    with bounded_steps(STEPS):
        try:
            return Schema(source)
        except SchemaError as error:
            is_short(error)
            return None
