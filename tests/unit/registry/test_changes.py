"""What a write to the registry changes: said with who asked, what it was and what it is, and nothing said where nothing changes."""

from __future__ import annotations

import pytest

from trunkline.registry import rules
from trunkline.registry.changes import Change, changes_of
from trunkline.registry.rules import Decide
from trunkline.registry.state import State

SCHEMA = '{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}'
OTHER = '{"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}, {"name": "n", "type": "int", "default": 0}]}'


class Book:
    """A registry's state, and what was said of its changes."""

    def __init__(self) -> None:
        self.state = State()

    def write(self, decide: Decide[object], by: str = "ada") -> list[Change]:
        records, _ = decide(self.state)
        changes = changes_of(self.state, records, by)
        for record in records:
            self.state.apply(*record.encoded())
        return changes


@pytest.fixture
def book() -> Book:
    return Book()


def test_a_new_version_is_a_change_and_the_same_schema_again_is_none(book: Book) -> None:
    (first,) = book.write(rules.register("orders", SCHEMA))
    assert (first.by, first.action, first.subject, first.before) == ("ada", "registry.register", "orders", None)
    assert isinstance(first.after, dict)
    assert (first.after["version"], first.after["id"], len(first.after["sha256"])) == (1, 1, 64)
    assert book.write(rules.register("orders", SCHEMA)) == []
    assert book.write(rules.register("orders", OTHER))[0].after["version"] == 2  # type: ignore[index,call-overload]


def test_a_level_and_a_mode_say_what_they_were(book: Book) -> None:
    assert book.write(rules.set_level("orders", "FULL")) == [Change("ada", "registry.level", "orders", None, "FULL")]
    assert book.write(rules.set_level("orders", "none")) == [Change("ada", "registry.level", "orders", "FULL", "NONE")]
    assert book.write(rules.set_level("orders", "NONE")) == []
    assert book.write(rules.delete_level("orders")) == [Change("ada", "registry.level", "orders", "NONE", None)]
    assert book.write(rules.set_mode(None, "READONLY", force=False)) == [
        Change("ada", "registry.mode", None, None, "READONLY")
    ]
    assert book.write(rules.delete_mode(None)) == [Change("ada", "registry.mode", None, "READONLY", None)]


def test_deleting_a_version_says_which_one_softly_and_for_good(book: Book) -> None:
    book.write(rules.register("orders", SCHEMA))
    book.write(rules.register("orders", OTHER))
    (soft,) = book.write(rules.delete_version("orders", "1", permanent=False))
    (hard,) = book.write(rules.delete_version("orders", "1", permanent=True))
    assert (soft.action, soft.before["version"], soft.after["deleted"]) == ("registry.delete", 1, True)  # type: ignore[index,call-overload]
    assert (hard.action, hard.before["version"], hard.after) == ("registry.forget", 1, None)  # type: ignore[index,call-overload]


def test_deleting_a_subject_is_one_change_with_its_versions_though_its_level_goes_too(book: Book) -> None:
    book.write(rules.register("orders", SCHEMA))
    book.write(rules.register("orders", OTHER))
    book.write(rules.set_level("orders", "FULL"))
    assert book.write(rules.delete_subject("orders", permanent=False)) == [
        Change("ada", "registry.delete_subject", "orders", {"versions": [1, 2]}, None)
    ]
    forgotten = book.write(rules.delete_subject("orders", permanent=True))
    assert [(one.action, one.before["version"]) for one in forgotten] == [
        ("registry.forget", 1),
        ("registry.forget", 2),
    ]  # type: ignore[index,call-overload]
