"""The state that follows from the topic: whatever stands there, it goes on, and its tables agree with its versions."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trunkline.registry.state import (
    Reference,
    SchemaKey,
    State,
    Version,
    delete_subject_record,
    forget_record,
    schema_record,
)

KEY = json.dumps({"keytype": "SCHEMA", "subject": "s", "version": 1, "magic": 1}).encode()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"[" * 100_000, None),
        (KEY, b"[" * 100_000),
        (KEY, b'{"id": 1e999, "schema": "x"}'),
        (KEY, b'{"id": ' + b"9" * 5000 + b', "schema": "x"}'),
        (KEY, b'{"id": 1, "schema": "x", "references": [{"name": "n", "subject": "s", "version": 1e999}]}'),
        (b'{"keytype":"SCHEMA","subject":"s","version":1e999,"magic":1}', b'{"id": 1, "schema": "x"}'),
        (b'{"keytype":"SCHEMA","subject":["s"],"version":1,"magic":1}', b'{"id": 1, "schema": "x"}'),
        (b'{"keytype":"DELETE_SUBJECT","subject":"s","magic":0}', b'{"subject": "s", "version": 1e999}'),
        (b"5", b"5"),
        (None, b"{}"),
    ],
)
def test_a_record_that_cannot_be_understood_is_counted_and_stops_nothing(
    key: bytes | None, value: bytes | None
) -> None:
    state = State()
    state.apply(key, value)
    assert state.unreadable == 1
    state.apply(*schema_record(Version("s", 1, 1, SchemaKey('"int"', ()))).encoded())
    assert [each.id for each in state.versions("s")] == [1]


SUBJECTS = st.sampled_from("abc")
NUMBERS = st.integers(1, 3)
VERSIONS = st.builds(
    lambda subject, number, schema, references, deleted: Version(
        subject, number, schema, SchemaKey(f'"{schema}"', tuple(references)), deleted
    ),
    SUBJECTS,
    NUMBERS,
    st.integers(1, 4),
    st.lists(st.builds(Reference, st.just("n"), SUBJECTS, NUMBERS), max_size=3),
    st.booleans(),
)
RECORDS = st.one_of(
    VERSIONS.map(schema_record),
    st.builds(forget_record, SUBJECTS, NUMBERS),
    st.builds(delete_subject_record, SUBJECTS, NUMBERS),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(RECORDS, max_size=25))
def test_what_is_looked_up_is_what_a_look_at_every_version_finds(records: list[Any]) -> None:
    state = State()
    for each in records:
        before = state.copy()
        known = {subject: dict(versions) for subject, versions in before.subjects.items()}
        state.apply(*each.encoded())
        assert {subject: dict(versions) for subject, versions in before.subjects.items()} == known, "a copy changed"
    everything = [each for versions in state.subjects.values() for each in versions.values()]
    for deleted in (False, True):
        there = [each for each in everything if deleted or not each.deleted]
        for schema_id in range(1, 5):
            found = [(each.subject, each.version) for each in state.of_id(schema_id, deleted=deleted)]
            assert found == sorted((each.subject, each.version) for each in there if each.id == schema_id)
        for place in ((subject, number) for subject in "abc" for number in range(1, 4)):
            users = {
                (each.subject, each.version)
                for each in there
                if any((ref.subject, ref.version) == place for ref in each.schema.references)
            }
            assert {(each.subject, each.version) for each in state.uses(*place, deleted=deleted)} == users
    assert set(state.by_id) == {each.id for each in everything}
