"""A schema registry somewhere else: any that speaks Confluent's REST interface, through confluent-kafka's own client."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from confluent_kafka.schema_registry import Schema as WireSchema
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.common._httpx_compat import httpx
from confluent_kafka.schema_registry.error import SchemaRegistryError

from trunkline.core.errors import ConfigurationError, RejectedError, RetriableError
from trunkline.registry import errors
from trunkline.registry.compatibility import LEVELS, Incompatibility, Level, breaks
from trunkline.registry.model import SchemaError
from trunkline.registry.schema import Schema, decode_json

T = TypeVar("T")
UNKNOWN_FOR: Final = 10.0
"""Seconds for which an id that the registry does not know is not asked for again."""
_MAX_REFERENCES: Final = 200


class RegistryClient:
    """The schemas of a registry. Ids are kept for ever, since their meaning never changes; may be used by several threads.

    `options` are those of confluent-kafka's `SchemaRegistryClient` apart from the URL: `basic.auth.user.info`,
    `ssl.ca.location`, `ssl.certificate.location`, `ssl.key.location`, `timeout` (seconds) and so on. Raises
    ConfigurationError for those that it does not take.
    """

    def __init__(self, url: str, options: Mapping[str, Any] | None = None) -> None:
        conf = {"timeout": 10.0, "max.retries": 2, "retries.wait.ms": 100, "retries.max.wait.ms": 1000}
        self._url = _without_password(url)
        try:
            self._client = SchemaRegistryClient({**conf, **(options or {}), "url": url})
        except (ValueError, TypeError, OSError) as error:
            raise ConfigurationError(
                f"the schema registry's options are wrong: {error}", code="registry.options"
            ) from error
        self._by_id: dict[int, Schema] = {}
        self._by_fingerprint: dict[tuple[str, str], Schema] = {}
        self._unknown: dict[int, tuple[float, RejectedError]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections. The client can't be used any more."""
        self._client.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def by_id(self, schema_id: int) -> Schema:
        """See `SchemaSource.by_id`. A registry that can't be reached is RetriableError (`registry.unavailable`)."""
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
            wire = self._call(lambda: self._client.get_schema(schema_id))
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

    def latest(self, subject: str) -> Schema:
        """See `SchemaSource.latest`. Asked anew at every call."""
        return self.version(subject, "latest")

    def version(self, subject: str, version: int | str) -> Schema:
        """One version of a subject. Raises ConfigurationError (`schema.unknown_subject`), RetriableError."""
        try:
            found = self._call(lambda: self._client.get_version(subject, version))  # type: ignore[arg-type]
        except _NotFoundError as error:
            raise ConfigurationError(
                f"the registry at {self._url} has no version {version} of the subject {subject!r}",
                code="schema.unknown_subject",
            ) from error
        return self._schema(found.schema, found.schema_id)

    def register(self, subject: str, schema: Schema) -> Schema:
        """See `SchemaSource.register`. The schema goes with its references inlined."""
        known = self._by_fingerprint.get((subject, schema.fingerprint))
        if known is not None:
            return known
        wire = WireSchema(schema.text, "AVRO")
        try:
            made = schema.with_id(self._call(lambda: self._client.register_schema(subject, wire)))
        except _NotFoundError as error:
            raise ConfigurationError(f"{self._url} is no schema registry: {error}", code="registry.refused") from error
        with self._lock:
            self._by_id.setdefault(made.id or 0, made)
            return self._by_fingerprint.setdefault((subject, schema.fingerprint), made)

    def subjects(self) -> list[str]:
        """All subjects."""
        return list(self._call(self._client.get_subjects))

    def versions(self, subject: str) -> list[int]:
        """The versions of a subject; none where there is no such subject."""
        try:
            return list(self._call(lambda: self._client.get_versions(subject)))
        except _NotFoundError:
            return []

    def level(self, subject: str) -> str:
        """The compatibility level that holds for a subject."""
        try:
            return str(self._call(lambda: self._client.get_compatibility(subject)))
        except _NotFoundError:
            return str(self._call(self._client.get_compatibility))

    def set_level(self, subject: str | None, level: str) -> None:
        """Set the compatibility level of a subject, or the global one."""
        self._call(lambda: self._client.set_compatibility(subject, level))

    def breaks(self, subject: str, schema: Schema, level: str | None = None) -> list[tuple[int, Incompatibility]]:
        """Why the schema could not become the subject's next version: of each reason the version that it breaks with.

        `level` is a compatibility level that the subject is about to get; without it the one that it has holds.
        """
        level = level or self.level(subject)
        known: Level = next((each for each in LEVELS if each == level), "NONE")
        numbers = self.versions(subject) if known != "NONE" else []
        held = numbers if known.endswith("_TRANSITIVE") else numbers[-1:]
        return [
            (number, found)
            for number in reversed(held)
            for found in breaks(schema.type, self.version(subject, number).type, known)
        ]

    def _schema(self, wire: WireSchema, schema_id: int | None) -> Schema:
        kind = wire.schema_type or "AVRO"
        if kind != "AVRO":
            raise SchemaError(f"it is a schema of the type {kind}; only AVRO can be read")
        budget = [_MAX_REFERENCES]
        return Schema(wire.schema_str, id=schema_id, references=self._referenced(wire, budget), strict=False)

    def _referenced(self, wire: WireSchema, budget: list[int]) -> list[Any]:
        """The schemas that one refers to, each after those that it refers to itself."""
        found: list[Any] = []
        for reference in wire.references or ():
            budget[0] -= 1
            if budget[0] < 0:
                raise SchemaError(f"it refers to more than {_MAX_REFERENCES} schemas")
            subject, version = str(reference.subject), int(reference.version or -1)
            try:
                inner = self._call(lambda s=subject, v=version: self._client.get_version(s, v, True)).schema  # type: ignore[misc]
            except _NotFoundError as error:
                raise SchemaError(
                    f"its reference {reference.name} ({subject} version {version}) is not there"
                ) from error
            found += [*self._referenced(inner, budget), decode_json(inner.schema_str)]
        return found

    def _call(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except SchemaRegistryError as error:
            raise self._translated(error) from error
        except httpx.TransportError as error:
            raise RetriableError(
                f"the schema registry at {self._url} can't be reached: {error or type(error).__name__}",
                code="registry.unavailable",
            ) from error
        except httpx.HTTPError as error:
            raise ConfigurationError(f"the schema registry at {self._url}: {error}", code="registry.options") from error

    def _translated(self, error: SchemaRegistryError) -> Exception:
        status, number = error.http_status_code, error.error_code
        message = f"the schema registry at {self._url} answered {status}: {str(error.error_message)[:500]}"
        if number in _NOT_FOUND:
            return _NotFoundError(str(error.error_message))
        if status in {408, 425, 429} or status >= 500:
            return RetriableError(message, code="registry.unavailable")
        if status in {401, 403}:
            return ConfigurationError(message, code="registry.denied", hint="check the registry's user and password")
        if status == errors.INCOMPATIBLE:
            return ConfigurationError(message, code="schema.incompatible")
        if number == errors.INVALID_SCHEMA:
            return ConfigurationError(message, code="schema.invalid")
        return ConfigurationError(message, code="registry.refused", hint="is this the URL of a schema registry?")


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
