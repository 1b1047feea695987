"""The schemas of a registry that speaks Confluent's REST interface: this worker's own, another's, or a vendor's."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from trunkline.core.errors import ConfigurationError, RejectedError, RetriableError, UnavailableError
from trunkline.core.redaction import learn_parts
from trunkline.core.secret import guarded
from trunkline.registry import errors
from trunkline.registry.compatibility import LEVELS, Incompatibility, Level, breaks
from trunkline.registry.model import SchemaError
from trunkline.registry.references import decoded_text, in_order
from trunkline.registry.refusals import unreachable
from trunkline.registry.remote import (
    LoopbackRegistry,
    OptionsError,
    Reference,
    RefusedError,
    Remote,
    RemoteSchema,
    UnreachableError,
)
from trunkline.registry.schema import Schema
from trunkline.registry.steps import Steps

T = TypeVar("T")
UNKNOWN_FOR: Final = 10.0
"""Seconds for which an id that the registry does not know is not asked for again."""
_CONTEXT: Final = re.compile(r"^:\.[^:]*:")
"""A context stands before the subject where a registry has several: https://docs.confluent.io/platform/current/schema-registry/schema-linking-cp.html"""
_HERE: Final = frozenset({"127.0.0.1", "::1"})


class RegistryClient:
    """The schemas of a registry. Ids are kept for good, since a registry never gives one twice; may be used by several threads.

    `options` are those of confluent-kafka's `SchemaRegistryClient` apart from the URL: `basic.auth.user.info`,
    `ssl.ca.location`, `ssl.certificate.location`, `ssl.key.location`, `timeout` (seconds) and so on. Raises
    ConfigurationError for those that it does not take.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        self._url = _without_password(url)
        learn_parts(url)
        self._remote = _remote(url, guarded(options or {}))
        self._by_id: dict[int, Schema] = {}
        self._by_fingerprint: dict[tuple[str, str], Schema] = {}
        self._unknown: dict[int, tuple[float, RejectedError]] = {}
        self._subjects: dict[int, set[str]] = {}
        """The subjects that an id is known to be of: there may be more."""
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """The URL, without a password."""
        return self._url

    def close(self) -> None:
        """Close the connections. The client can't be used any more."""
        self._remote.close()

    def by_id(self, schema_id: int) -> Schema:
        """See `SchemaSource.by_id`. A registry that can't be reached is RetriableError, whose code says why."""
        found = self._by_id.get(schema_id)
        if found is not None:
            return found
        refused = self._unknown.get(schema_id)
        if refused is not None:
            if time.monotonic() < refused[0]:
                raise refused[1].with_traceback(None)
            self._unknown.pop(schema_id, None)
        try:
            made = self._fetch(schema_id)
        except RejectedError as error:
            with self._lock:
                if len(self._unknown) > 10_000:
                    self._unknown.clear()
                self._unknown[schema_id] = (time.monotonic() + UNKNOWN_FOR, error)
            raise
        with self._lock:
            return self._by_id.setdefault(schema_id, made)

    def _fetch(self, schema_id: int) -> Schema:
        try:
            wire = self._call(lambda: self._remote.schema(schema_id))
        except _NotFoundError as error:
            raise RejectedError(
                f"the registry at {self._url} has no schema with id {schema_id}",
                code="record.unknown_schema",
                hint="was it written with another registry?",
            ) from error
        try:
            return self._schema(wire, schema_id)
        except SchemaError as error:
            raise RejectedError(
                f"the schema with id {schema_id} can't be used: {error}", code="record.undecodable"
            ) from error

    def is_of(self, schema: Schema, subject: str) -> bool:
        """See `SubjectSource.is_of`. What is true stays true; what is not is asked again."""
        schema_id = schema.id or 0
        if subject in self._subjects.get(schema_id, ()):
            return True
        found = subject in self._asked_subjects(schema_id) or self._looked_up(schema_id, subject)
        if found:
            with self._lock:
                self._subjects.setdefault(schema_id, set()).add(subject)
        return found

    def subjects_of(self, schema: Schema) -> list[str]:
        """See `SubjectSource.subjects_of`."""
        return sorted(self._asked_subjects(schema.id or 0))

    def has_subject(self, subject: str) -> bool:
        """See `SubjectSource.has_subject`. Asked anew at every call."""
        try:
            return bool(self._call(lambda: self._remote.versions(subject, deleted=True)))
        except _NotFoundError:
            return False

    def _asked_subjects(self, schema_id: int) -> set[str]:
        """Nothing also where the registry does not offer the question."""
        try:
            found = self._call(lambda: self._remote.subjects_of(schema_id))
        except _NotFoundError:
            return set()
        except ConfigurationError as error:
            if error.code != "registry.unexpected":
                raise
            return set()
        return {_CONTEXT.sub("", subject) for subject in found}

    def _looked_up(self, schema_id: int, subject: str) -> bool:
        """The other way round: not every registry tells of softly deleted versions, or knows the subjects of an id at all."""
        try:
            wire = self._call(lambda: self._remote.schema(schema_id))
            return self._call(lambda: self._remote.lookup(subject, wire)) == schema_id
        except _NotFoundError:
            return False

    def latest(self, subject: str) -> Schema:
        """See `SchemaSource.latest`. Asked anew at every call."""
        return self.version(subject, "latest")

    def version(self, subject: str, version: int | str) -> Schema:
        """One version of a subject. Raises ConfigurationError (`schema.unknown_subject`), RetriableError."""
        try:
            found = self._call(lambda: self._remote.version(subject, version))
        except _NotFoundError as error:
            raise ConfigurationError(
                f"the registry at {self._url} has no version {version} of the subject {subject!r}",
                code="schema.unknown_subject",
            ) from error
        return self._schema(found, found.id)

    def register(self, subject: str, schema: Schema) -> Schema:
        """See `SchemaSource.register`. The schema goes with its references inlined."""
        known = self._by_fingerprint.get((subject, schema.fingerprint))
        if known is not None:
            return known
        try:
            made = schema.with_id(self._call(lambda: self._remote.register(subject, schema.text)))
        except _NotFoundError as error:
            raise ConfigurationError(
                f"{self._url} is no schema registry: {error}", code="registry.unexpected"
            ) from error
        with self._lock:
            self._by_id.setdefault(made.id or 0, made)
            self._subjects.setdefault(made.id or 0, set()).add(subject)
            return self._by_fingerprint.setdefault((subject, schema.fingerprint), made)

    # --- for `RegistryWatch`, which looks whether the registry is still the same ---

    def known(self) -> list[Schema]:
        """The schemas whose ids are known."""
        return list(self._by_id.values())

    def registrations(self, schema: Schema) -> list[str]:
        """The subjects under which this client registered a schema."""
        return [subject for (subject, _), made in list(self._by_fingerprint.items()) if made.id == schema.id]

    def text_now(self, schema_id: int) -> str | None:
        """What the registry says now of an id; None where it has none of that id. Raises as `by_id` does, and SchemaError."""
        self._remote.forget()
        try:
            wire = self._call(lambda: self._remote.schema(schema_id))
        except _NotFoundError:
            return None
        return self._schema(wire, schema_id).text

    def register_again(self, subject: str, schema: Schema) -> int:
        """The id that the registry gives a schema now."""
        self._remote.forget()
        return self._call(lambda: self._remote.register(subject, schema.text))

    def forget(self) -> None:
        """Everything is asked anew from now on."""
        with self._lock:
            for kept in (self._by_id, self._by_fingerprint, self._unknown, self._subjects):
                kept.clear()

    def subjects(self) -> list[str]:
        """All subjects."""
        return self._call(self._remote.subjects)

    def versions(self, subject: str) -> list[int]:
        """The versions of a subject; none where there is no such subject."""
        try:
            return self._call(lambda: self._remote.versions(subject))
        except _NotFoundError:
            return []

    def level(self, subject: str) -> str:
        """The compatibility level that holds for a subject."""
        try:
            return self._call(lambda: self._remote.level(subject))
        except _NotFoundError:
            return self._call(lambda: self._remote.level(None))

    def set_level(self, subject: str | None, level: str) -> None:
        """Set the compatibility level of a subject, or the global one."""
        self._call(lambda: self._remote.set_level(subject, level))

    def breaks(self, subject: str, schema: Schema, level: str | None = None) -> list[tuple[int, Incompatibility]]:
        """Why the schema could not become the subject's next version: of each reason the version that it breaks with.

        `level` is a compatibility level that the subject is about to get; without it the one that it has holds.
        """
        level = level or self.level(subject)
        known: Level = next((each for each in LEVELS if each == level), "NONE")
        numbers = self.versions(subject) if known != "NONE" else []
        held = numbers if known.endswith("_TRANSITIVE") else numbers[-1:]
        steps = Steps()
        return [
            (number, found)
            for number in reversed(held)
            for found in breaks(schema.type, self.version(subject, number).type, known, steps)
        ]

    def _schema(self, found: RemoteSchema, schema_id: int | None) -> Schema:
        if found.type != "AVRO":
            raise SchemaError(f"it is a schema of the type {found.type}; only AVRO can be read")
        steps = Steps()
        used = in_order(found.references, lambda one: (one.subject, one.version), self._load)
        return Schema(
            found.text,
            id=schema_id,
            references=[decoded_text(one.text, steps) for one in used],
            strict=False,
            steps=steps,
        )

    def _load(self, one: Reference, place: tuple[str, int]) -> tuple[RemoteSchema, Sequence[Reference]]:
        """What a reference means, and what that refers to itself."""
        try:
            found = self._call(lambda: self._remote.version(*place, deleted=True))
        except _NotFoundError as error:
            raise SchemaError(f"its reference {one.name} ({one.subject} version {one.version}) is not there") from error
        return found, found.references

    def _call(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except RefusedError as error:
            raise self._translated(error) from error
        except UnreachableError as error:
            raise unreachable(self._url, error) from error
        except OptionsError as error:
            raise ConfigurationError(f"the schema registry at {self._url}: {error}", code="registry.options") from error

    def _translated(self, error: RefusedError) -> Exception:
        status, number = error.status, error.number
        message = f"the schema registry at {self._url} answered {status}: {error.message}"
        if number in _NOT_FOUND:
            return _NotFoundError(error.message)
        if status in {408, 425, 429} or status >= 500:
            return RetriableError(message, code="registry.unavailable")
        if status == HTTPStatus.UNAUTHORIZED:
            return UnavailableError(
                message,
                hint="check TRUNKLINE_REGISTRY_BASIC_AUTH_USER_INFO (user:password) or TRUNKLINE_REGISTRY_BEARER_AUTH_TOKEN",
                code="registry.authentication",
            )
        if status == HTTPStatus.FORBIDDEN:
            return UnavailableError(
                message, hint="grant the registry's user the right to read and register schemas", code="registry.denied"
            )
        if status == errors.INCOMPATIBLE:
            return ConfigurationError(message, code="schema.incompatible")
        if number == errors.INVALID_SCHEMA:
            return ConfigurationError(message, code="schema.invalid")
        return ConfigurationError(message, code="registry.unexpected", hint="is this the URL of a schema registry?")


def _remote(url: str, options: Mapping[str, Any]) -> Remote:
    """How to ask: plainly where the registry is on this machine and nothing else is said, else through the library."""
    try:
        parts = urlsplit(url)
        here = parts.scheme == "http" and parts.hostname in _HERE and "@" not in parts.netloc and parts.port != 0
    except ValueError as error:
        raise ConfigurationError(
            f"{_without_password(url)!r} is no URL of a schema registry: {error}",
            hint="write it like http://registry.example.com:8081",
            code="registry.options",
        ) from error
    _require_files(options)
    if here and not options:
        return LoopbackRegistry(url)
    from trunkline.registry.confluent import ConfluentRegistry

    try:
        return ConfluentRegistry(url, options)
    except OptionsError as error:
        raise ConfigurationError(
            f"the schema registry's options are wrong: {error}", code="registry.options"
        ) from error


def _require_files(options: Mapping[str, Any]) -> None:
    """Raises UnavailableError for the file of an option that can't be read: the library names neither file nor option."""
    for option, code in _FILES.items():
        file = options.get(option)
        if file is None:
            continue
        try:
            Path(file).read_bytes()
        except OSError as error:
            raise UnavailableError(
                f"the file {file} can't be read: {error.strerror}",
                where=f"TRUNKLINE_REGISTRY_{option.upper().replace('.', '_')}",
                hint="it must be a readable file in PEM format",
                code=code,
            ) from error


_FILES: Final = {
    "ssl.ca.location": "registry.tls_ca",
    "ssl.certificate.location": "registry.tls_client_certificate",
    "ssl.key.location": "registry.tls_client_certificate",
}


class _NotFoundError(Exception):
    """The registry itself said that it has no such thing; a proxy's 404 is not that."""


_NOT_FOUND = frozenset(
    {
        errors.SUBJECT_NOT_FOUND,
        errors.VERSION_NOT_FOUND,
        errors.SCHEMA_NOT_FOUND,
        errors.SUBJECT_SOFT_DELETED,
        errors.VERSION_SOFT_DELETED,
        errors.SUBJECT_CONFIG_NOT_FOUND,
        errors.SUBJECT_MODE_NOT_FOUND,
    }
)


def _without_password(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
