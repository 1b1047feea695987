"""What the registry decides: from the state and a request to records to be written and an answer. Nothing here does I/O.

Each decision is made again from the start when another writer was first, so none may depend on anything but its arguments. None takes
long, for all other writers wait meanwhile: what does is judged before (`candidate`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, TypeVar

from trunkline.registry import errors
from trunkline.registry.avrotype import INT_MAX, INT_MIN
from trunkline.registry.candidate import Candidate, Judgement
from trunkline.registry.compatibility import LEVELS
from trunkline.registry.errors import RegistryError
from trunkline.registry.state import (
    Record,
    SchemaKey,
    State,
    Version,
    delete_subject_record,
    forget_record,
    highest_id_record,
    level_record,
    mode_record,
    schema_record,
)
from trunkline.registry.wire import MAX_ID

T = TypeVar("T")
_WHOLE: Final = re.compile(r"([+-]?)0*([0-9]{1,10})")
Decision = tuple[list[Record], T]
Decide = Callable[[State], Decision[T]]


def find(state: State, subject: str, key: SchemaKey, *, deleted: bool = False) -> Version | None:
    """The version of a subject that is this schema."""
    return next((each for each in reversed(state.versions(subject, deleted=deleted)) if each.schema == key), None)


def lookup(state: State, subject: str, sent: Candidate, *, deleted: bool) -> Version:
    """The version that is this schema. Raises 40401 or 40403."""
    if not state.versions(subject, deleted=deleted):
        raise errors.subject_not_found(subject)
    found = find(state, subject, sent.key, deleted=deleted)
    if found is None:
        raise errors.schema_not_found()
    return found


def whole_number(text: str) -> int | None:
    """A number of 32 bits, as Java reads one: with a sign and zeros before it. None for what is none."""
    match = _WHOLE.fullmatch(text)
    if match is None:
        return None
    found = int(match[1] + match[2])
    return found if INT_MIN <= found <= INT_MAX else None


LARGEST_IMPORTED = MAX_ID - 2**24
"""Of ids that an import chooses: a new schema gets the one behind the highest that there ever was, and there must be one."""


def version_of(state: State, subject: str, wanted: str, *, deleted: bool = False) -> Version:
    """The version that a path names: a number, `latest` or -1. Raises 40401, 40402 or 42202."""
    number = parse_version(wanted)
    found = state.versions(subject, deleted=deleted)
    if not found:
        raise errors.subject_not_found(subject)
    if number == -1:
        return found[-1]
    for each in found:
        if each.version == number:
            return each
    raise errors.version_not_found(number)


def parse_version(wanted: str) -> int:
    """A version's number, -1 for the latest. Raises 42202."""
    text = wanted.strip()
    if text.lower() == "latest" or text == "-1":
        return -1
    found = whole_number(text)
    if found is None or found < 1:
        raise errors.invalid_version(wanted[:100])
    return found


class Registration:
    """Registering a schema: judged first, then decided."""

    def __init__(
        self,
        subject: str,
        judgement: Judgement,
        *,
        schema_id: int | None = None,
        version: int | None = None,
    ) -> None:
        """`schema_id` and `version` are for import mode."""
        self._subject = subject
        self._judgement = judgement
        self._id = schema_id
        self._version = version

    def judge(self, state: State) -> None:
        """Finds out what deciding on this state needs. Raises RegistryError as `decide` does, where no other state would mend it."""
        try:
            self._decide(state, known=False)
        except RegistryError:
            if self._judgement.hopeless:
                raise

    def decide(self, state: State) -> Decision[Version]:
        """The records, and the version that the schema is.

        Raises 42201, 42205 (read-only; an id outside import mode), 409 (incompatible), and UnjudgedError where something has come up
        since that was not judged.
        """
        return self._decide(state, known=True)

    def _decide(self, state: State, *, known: bool) -> Decision[Version]:
        subject, wanted_id, wanted_version = self._subject, self._id, self._version
        mode = state.mode(subject)
        sent = self._judgement.candidate(state, known=known)
        found = find(state, subject, sent.key)
        if found is not None and wanted_id in (None, -1, found.id) and wanted_version in (None, -1, 0, found.version):
            return [], found
        _require_writable(state, subject)
        if mode == "IMPORT":
            return _import(state, subject, sent, wanted_id, wanted_version)
        if wanted_id not in (None, -1) and wanted_id != state.ids.get(sent.key):
            raise RegistryError(errors.OPERATION_NOT_PERMITTED, f"Subject {subject} is not in import mode")
        level = state.level(subject)
        broken = self._judgement.incompatible(state, level, state.versions(subject), known=known)
        if broken:
            details = "; ".join(f"version {old.version}: {str(each)[:1000]}" for old, each in broken[:5])
            raise RegistryError(
                errors.INCOMPATIBLE,
                f"Schema being registered is incompatible with an earlier schema for subject {subject!r} "
                f"(compatibility {level}): {details}",
            )
        number = max(state.subjects.get(subject, {}), default=0) + 1
        chosen = state.ids.get(sent.key) or state.highest_id + 1
        return _added(Version(subject, number, chosen, sent.key))


def register(
    subject: str,
    text: Any,
    kind: Any = None,
    references: Any = None,
    *,
    normalize: bool = False,
    schema_id: int | None = None,
    version: int | None = None,
) -> Decide[Version]:
    """Registers a schema, judged while it is decided: for who is alone. See `Registration`."""
    body = {"schema": text, "schemaType": kind, "references": references}
    work = Registration(subject, Judgement(body, normalize=normalize), schema_id=schema_id, version=version)

    def decide(state: State) -> Decision[Version]:
        work.judge(state)
        return work.decide(state)

    return decide


def _import(
    state: State, subject: str, sent: Candidate, schema_id: int | None, version: int | None
) -> Decision[Version]:
    chosen = schema_id if schema_id not in (None, -1) else state.ids.get(sent.key) or state.highest_id + 1
    assert chosen is not None
    if chosen > LARGEST_IMPORTED:
        message = f"The id {chosen} is too large: behind {LARGEST_IMPORTED} are those that are given to new schemas"
        raise RegistryError(errors.OPERATION_NOT_PERMITTED, message)
    taken = state.by_id.get(chosen)
    if taken is not None and taken != sent.key:
        raise RegistryError(errors.OPERATION_NOT_PERMITTED, f"Overwrite new schema with id {chosen} is not permitted.")
    number = version if version not in (None, -1, 0) else max(state.subjects.get(subject, {}), default=0) + 1
    assert number is not None
    old = state.subjects.get(subject, {}).get(number)
    if old is not None and old.id != chosen:
        raise RegistryError(errors.OPERATION_NOT_PERMITTED, f"Subject {subject} version {number} has another schema")
    return _added(Version(subject, number, chosen, sent.key))


def _added(made: Version) -> Decision[Version]:
    # Records have four bytes for an id, and clients take it for a signed number.
    if made.id > MAX_ID or made.version > MAX_ID:
        what = "id" if made.id > MAX_ID else f"version of {made.subject}"
        raise RegistryError(errors.OPERATION_NOT_PERMITTED, f"There is no {what} left: the last one is taken")
    return [schema_record(made)], made


def delete_subject(subject: str, *, permanent: bool) -> Decide[list[int]]:
    """Delete all versions of a subject, softly or for good. Raises 40401, 40404, 40405, 42205, 42206."""

    def decide(state: State) -> Decision[list[int]]:
        _require_writable(state, subject)
        every, live = state.versions(subject, deleted=True), state.versions(subject)
        if not every:
            raise errors.subject_not_found(subject)
        if not permanent and not live:
            raise RegistryError(
                errors.SUBJECT_SOFT_DELETED,
                f"Subject '{subject}' was soft deleted. Set permanent=true to delete permanently",
            )
        if permanent and live:
            raise RegistryError(
                errors.SUBJECT_NOT_SOFT_DELETED,
                f"Subject '{subject}' was not deleted first before being permanently deleted",
            )
        for each in every if permanent else live:
            _require_unused(state, each, deleted=permanent)
        if not permanent:
            records = [delete_subject_record(subject, live[-1].version)]
        else:
            records = [forget_record(subject, each.version) for each in every]
            records += [delete_subject_record(subject, None), highest_id_record(state.highest_id)]
        records += [level_record(subject, None)] if subject in state.levels else []
        records += [mode_record(subject, None)] if subject in state.modes else []
        return records, [each.version for each in (every if permanent else live)]

    return decide


def delete_version(subject: str, wanted: str, *, permanent: bool) -> Decide[int]:
    """Delete one version, softly or for good. Raises 40401, 40402, 40406, 40407, 42202, 42205, 42206."""

    def decide(state: State) -> Decision[int]:
        _require_writable(state, subject)
        if parse_version(wanted) == -1 and state.versions(subject):
            found = state.versions(subject)[-1]
        else:
            found = version_of(state, subject, wanted, deleted=True)
        if not permanent and found.deleted:
            raise RegistryError(
                errors.VERSION_SOFT_DELETED,
                f"Subject '{subject}' Version {found.version} was soft deleted. Set permanent=true to delete permanently",
            )
        if permanent and not found.deleted:
            raise RegistryError(
                errors.VERSION_NOT_SOFT_DELETED,
                f"Subject '{subject}' Version {found.version} was not deleted first before being permanently deleted",
            )
        _require_unused(state, found, deleted=permanent)
        if permanent:
            return [forget_record(subject, found.version), highest_id_record(state.highest_id)], found.version
        gone = Version(subject, found.version, found.id, found.schema, deleted=True, kind=found.kind)
        return [schema_record(gone)], found.version

    return decide


def set_level(subject: str | None, level: Any) -> Decide[str]:
    """Set a compatibility level. Raises 42203, 42205."""

    def decide(state: State) -> Decision[str]:
        if not isinstance(level, str) or level.upper() not in LEVELS:
            raise errors.invalid_compatibility(level)
        _require_writable(state, subject)
        return [level_record(subject, level.upper())], level.upper()

    return decide


def delete_level(subject: str | None) -> Decide[str]:
    """Forget a compatibility level; the answer is the level that was set. Raises 40408, 42205."""

    def decide(state: State) -> Decision[str]:
        _require_writable(state, subject)
        old = state.levels.get(subject)
        if old is None and subject is not None:
            raise level_not_found(subject)
        return ([level_record(subject, None)] if old else []), old or "BACKWARD"

    return decide


def set_mode(subject: str | None, mode: Any, *, force: bool) -> Decide[str]:
    """Set a mode. Raises 42204, and 42205 for IMPORT where schemas exist and `force` is not given."""

    def decide(state: State) -> Decision[str]:
        if not isinstance(mode, str) or mode.upper() not in errors.MODES:
            raise errors.invalid_mode(mode)
        if mode.upper() == "IMPORT" and state.mode(subject) != "IMPORT" and not force:
            holds = state.versions(subject) if subject is not None else [*state.subjects]
            if holds:
                raise RegistryError(errors.OPERATION_NOT_PERMITTED, "Cannot import since found existing subjects")
        return [mode_record(subject, mode.upper())], mode.upper()

    return decide


def delete_mode(subject: str | None) -> Decide[str]:
    """Forget a mode; the answer is the mode that was set. Raises 40409."""

    def decide(state: State) -> Decision[str]:
        old = state.modes.get(subject)
        if old is None and subject is not None:
            raise mode_not_found(subject)
        return ([mode_record(subject, None)] if old else []), old or "READWRITE"

    return decide


def level_not_found(subject: str) -> RegistryError:
    """The subject has no compatibility level of its own."""
    return RegistryError(
        errors.SUBJECT_CONFIG_NOT_FOUND, f"Subject '{subject}' does not have subject-level compatibility configured"
    )


def mode_not_found(subject: str) -> RegistryError:
    """The subject has no mode of its own."""
    return RegistryError(
        errors.SUBJECT_MODE_NOT_FOUND, f"Subject '{subject}' does not have subject-level mode configured"
    )


def _require_writable(state: State, subject: str | None) -> None:
    if state.mode(subject).startswith("READONLY"):
        raise RegistryError(errors.OPERATION_NOT_PERMITTED, f"Subject {subject} is in read-only mode")


def _require_unused(state: State, each: Version, *, deleted: bool) -> None:
    if any(user.subject != each.subject for user in state.uses(each.subject, each.version, deleted=deleted)):
        raise RegistryError(
            errors.REFERENCE_EXISTS,
            f"One or more references exist to the schema {{subject={each.subject},version={each.version}}}",
        )
