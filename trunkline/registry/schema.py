"""A schema ready for use, and where schemas come from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any, Final, Protocol

import fastavro

from trunkline.registry.model import AvroType, SchemaError, parse_type
from trunkline.registry.model_json import to_json
from trunkline.registry.source_json import decode
from trunkline.registry.steps import Steps

MAX_SCHEMA_BYTES = 1024 * 1024
WRAPPED: Final = "datum"
"""The field of a record that stands around a datum."""
_BARE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")


class Schema:
    """An immutable schema: its JSON form with references resolved, fastavro's parsed form, and a fingerprint of both.

    Two schemas with the same `fingerprint` encode and decode alike and carry the same documentation, aliases and defaults.
    `id` is None until a registry gave one.
    """

    __slots__ = ("__weakref__", "fingerprint", "id", "json", "name", "parsed", "text", "type", "wrapped")

    id: int | None
    json: Any
    text: str
    type: AvroType
    parsed: Any
    wrapped: bool
    """Whether a datum for `parsed` is a record with the datum in its field `WRAPPED`."""
    fingerprint: str
    name: str

    def __init__(
        self,
        source: Any,
        *,
        id: int | None = None,  # noqa: A002 (the word that the wire format and every registry use)
        references: Iterable[Any] = (),
        strict: bool = True,
        steps: Steps | None = None,
    ) -> None:
        """`source` and `references` are JSON text or decoded JSON.

        Raises SchemaError (`schema.invalid`, and `schema.too_costly` for one that takes more than `steps`). `strict=False` accepts what
        another registry may have let pass and a reader can live with, such as a wrong default.
        """
        decoded = [decode_json(reference) for reference in references]
        node = parse_type(decode_json(source), decoded, strict=strict, steps=steps)
        self._fill(node, id)

    def _fill(self, node: AvroType, schema_id: int | None) -> None:
        put = object.__setattr__
        resolved = to_json(node)
        text = json.dumps(resolved, ensure_ascii=False, separators=(",", ":"))
        parsed, wrapped = parsed_by_library(node)
        put(self, "id", schema_id)
        put(self, "json", resolved)
        put(self, "text", text)
        put(self, "type", node)
        put(self, "parsed", parsed)
        put(self, "wrapped", wrapped)
        put(self, "fingerprint", hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest())
        put(self, "name", node.name or node.kind)

    def with_id(self, schema_id: int) -> Schema:
        """The same schema under the id that a registry gave it."""
        made = Schema.__new__(Schema)
        for slot in ("json", "text", "type", "parsed", "wrapped", "fingerprint", "name"):
            object.__setattr__(made, slot, getattr(self, slot))
        object.__setattr__(made, "id", schema_id)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a schema never changes; {name} can't be set")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Schema) and self.id == other.id and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash((self.id, self.fingerprint))

    def __repr__(self) -> str:
        return f"<Schema {self.name} id={self.id}>"


def parsed_by_library(node: AvroType) -> tuple[Any, bool]:
    """The parsed form that fastavro's readers and writers take, and whether it is of a record around the type. Raises SchemaError.

    fastavro recognises only a record as parsed before. Any other schema it parses for every datum, which takes a second for a union of
    some thousand records; so such a type stands in a record of its own, which takes no bytes.
    """
    wrapped = node.kind in {"union", "array", "map"}
    plain = to_json(node, plain=True)
    if wrapped:
        plain = {"type": "record", "name": "__datum__", "fields": [{"name": WRAPPED, "type": plain}]}
    try:
        return fastavro.parse_schema(plain, _ignore_default_error=True), wrapped
    except (
        fastavro.schema.SchemaParseException,
        fastavro.schema.UnknownType,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise SchemaError(f"the schema can't be used: {str(error)[:500]}") from error


class SchemaSource(Protocol):
    """Where schemas come from: a registry's client, or a dictionary in a test. Every method may block."""

    def by_id(self, schema_id: int) -> Schema:
        """The schema of that id.

        Raises RejectedError (`record.unknown_schema`) only where the registry answered that it has none, and RetriableError
        or UnavailableError where it could not be asked.
        """

    def latest(self, subject: str) -> Schema:
        """The latest schema of a subject. Raises ConfigurationError (`schema.unknown_subject`) where it has none."""

    def register(self, subject: str, schema: Schema) -> Schema:
        """The schema with its id, registered if it was not. Raises ConfigurationError (`schema.incompatible`, `schema.invalid`)."""


def decode_json(source: Any) -> Any:
    """Decoded JSON of text; a bare name such as `string` is a schema too, as registries take it. Raises SchemaError."""
    if isinstance(source, Schema):
        return source.json
    if isinstance(source, bytes):
        source = source.decode("utf-8", "strict") if len(source) <= MAX_SCHEMA_BYTES else source.decode("latin-1")
    if not isinstance(source, str):
        return source
    if len(source) > MAX_SCHEMA_BYTES:
        raise SchemaError(f"the schema has more than {MAX_SCHEMA_BYTES} characters")
    if _BARE_NAME.fullmatch(source.strip()):
        # Also `null`, which as JSON would be nothing.
        return source.strip()
    return decode(source)
