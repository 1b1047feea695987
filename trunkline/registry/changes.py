"""What a write to the registry changes, said for the audit trail: who, what of which subject, what it was and what it is.

The registry knows no trail. It hands its changes to an `Auditor`, which makes records of them that go into the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol

from trunkline.registry.state import Record, State, Version

UNKNOWN: Final = "the registry"
"""Who writes what nobody asked for."""


class Extra(NamedTuple):
    """A record of another topic, in the same transaction."""

    topic: str
    partition: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One change. `action` is noun and verb (`registry.register`); without a subject it is about all of them."""

    by: str
    action: str
    subject: str | None
    before: Mapping[str, Any] | str | None
    after: Mapping[str, Any] | str | None


class Auditor(Protocol):
    """Makes the records of a trail. It belongs to one store."""

    def begin(self) -> None:
        """Another producer writes from now on; what became of the former one's last transaction may not be known."""

    def records(self, changes: Sequence[Change]) -> Sequence[Extra]:
        """The records that tell of these changes, to be written in the same transaction."""


def changes_of(state: State, records: Sequence[Record], by: str) -> list[Change]:
    """What these records change in a state, which they are not applied to yet."""
    gone = {key.get("subject") for key, value in records if key["keytype"] == "DELETE_SUBJECT" and value is not None}
    found = []
    for record in records:
        change = _change(state, record, by)
        if change is not None and not (change.subject in gone and change.action in {"registry.level", "registry.mode"}):
            found.append(change)
    return found


def _change(state: State, record: Record, by: str) -> Change | None:
    key, value, subject = record.key, record.value, record.key.get("subject")
    kind = key["keytype"]
    if kind == "SCHEMA":
        before = state.subjects.get(subject or "", {}).get(key["version"])
        was = _shown(before) if before is not None else None
        if value is None:
            return Change(by, "registry.forget", subject, was, None)
        action = "registry.delete" if value["deleted"] else "registry.register"
        return Change(
            by, action, subject, was, _described(value["version"], value["id"], value["schema"], value["deleted"])
        )
    if kind == "DELETE_SUBJECT" and value is not None:
        live = [each.version for each in state.versions(subject or "")]
        return Change(by, "registry.delete_subject", subject, {"versions": live}, None)
    if kind == "CONFIG":
        return _set(by, "registry.level", subject, state.levels, value["compatibilityLevel"] if value else None)
    if kind == "MODE":
        return _set(by, "registry.mode", subject, state.modes, value["mode"] if value else None)
    return None  # what only keeps an id, or forgets a deletion, changes nothing that anybody asked for


def _set(
    by: str, action: str, subject: str | None, known: Mapping[str | None, str], after: str | None
) -> Change | None:
    before = known.get(subject)
    return Change(by, action, subject, before, after) if before != after else None


def _shown(each: Version) -> Mapping[str, Any]:
    return _described(each.version, each.id, each.schema.text, each.deleted)


def _described(version: int, identity: int, text: str, deleted: bool) -> Mapping[str, Any]:
    """A version in a few words: its text may be long, and is in the registry's own topic."""
    digest = sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
    return {"version": version, "id": identity, "sha256": digest, **({"deleted": True} if deleted else {})}
