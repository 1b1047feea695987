"""A registry elsewhere, asked through confluent-kafka's client: TLS, sign-in, proxies, retries. Loaded where one is used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from confluent_kafka.schema_registry import Schema as WireSchema
from confluent_kafka.schema_registry import SchemaReference, SchemaRegistryClient
from confluent_kafka.schema_registry.common._httpx_compat import httpx
from confluent_kafka.schema_registry.error import SchemaRegistryError

from trunkline.core.secret import revealed
from trunkline.registry.remote import (
    TIMEOUT_SECONDS,
    OptionsError,
    Reference,
    RefusedError,
    RemoteSchema,
    UnreachableError,
)

T = TypeVar("T")


class ConfluentRegistry:
    """See `Remote`. `options` are those of `SchemaRegistryClient`; raises OptionsError for those that it does not take."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        conf = {"timeout": TIMEOUT_SECONDS, "max.retries": 2, "retries.wait.ms": 100, "retries.max.wait.ms": 1000}
        try:
            self._client = SchemaRegistryClient(revealed({**conf, **options, "url": url}))
        except (ValueError, TypeError, OSError) as error:
            raise OptionsError(str(error)) from error

    def close(self) -> None:
        """See `Remote`."""
        self._client.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def forget(self) -> None:
        """See `Remote`."""
        self._client.clear_caches()  # type: ignore[no-untyped-call]

    def schema(self, schema_id: int) -> RemoteSchema:
        """See `Remote`."""
        return _schema(_asked(lambda: self._client.get_schema(schema_id)), None)

    def version(self, subject: str, version: int | str, *, deleted: bool = False) -> RemoteSchema:
        """See `Remote`."""
        found = _asked(lambda: self._client.get_version(subject, version, deleted))  # type: ignore[arg-type]
        return _schema(found.schema, found.schema_id)

    def subjects_of(self, schema_id: int) -> list[str]:
        """See `Remote`. Not every registry has the shorter way, `/schemas/ids/{id}/subjects`."""
        found = _asked(lambda: self._client.get_schema_versions(schema_id, deleted=True))
        return sorted({str(one.subject) for one in found})

    def lookup(self, subject: str, schema: RemoteSchema) -> int:
        """See `Remote`."""
        references = [SchemaReference(one.name, one.subject, one.version) for one in schema.references]
        wire = WireSchema(schema.text, schema.type, references)
        return int(_asked(lambda: self._client.lookup_schema(subject, wire, deleted=True)).schema_id or 0)

    def register(self, subject: str, text: str) -> int:
        """See `Remote`."""
        return int(_asked(lambda: self._client.register_schema(subject, WireSchema(text, "AVRO"))))

    def subjects(self) -> list[str]:
        """See `Remote`."""
        return list(_asked(self._client.get_subjects))

    def versions(self, subject: str, *, deleted: bool = False) -> list[int]:
        """See `Remote`."""
        return list(_asked(lambda: self._client.get_versions(subject, deleted=deleted)))

    def level(self, subject: str | None) -> str:
        """See `Remote`."""
        return str(_asked(lambda: self._client.get_compatibility(subject)))

    def set_level(self, subject: str | None, level: str) -> None:
        """See `Remote`."""
        _asked(lambda: self._client.set_compatibility(subject, level))


def _schema(wire: WireSchema, schema_id: int | None) -> RemoteSchema:
    references = [Reference(str(one.name), str(one.subject), int(one.version or -1)) for one in wire.references or ()]
    return RemoteSchema(wire.schema_str or "", wire.schema_type or "AVRO", references, schema_id)


def _asked(ask: Callable[[], T]) -> T:
    try:
        return ask()
    except SchemaRegistryError as error:
        raise RefusedError(error.http_status_code, error.error_code, str(error.error_message)[:500]) from error
    except httpx.TransportError as error:
        raise UnreachableError(str(error) or type(error).__name__) from error
    except httpx.HTTPError as error:
        raise OptionsError(str(error)) from error
