"""Values in the Confluent wire format to Python data and back, on fastavro.

fastavro does the work, and for plain records code that is generated for their schema (`fast_read`, `fast_write`), which leaves
to fastavro whatever is unusual. What fastavro lets pass silently is stopped around it. Before decoding: `guard`, for untrusted topics,
for schemas whose few bytes can cost without bound, and for every datum that the generated code found unusual, such as one with a
negative index, which would be taken for one from the end. After decoding: that every byte was consumed. Before encoding:
`fast_check`. Whatever the check does not vouch for goes through `precise`, which is slower and has the last word.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from io import BytesIO
from operator import itemgetter
from typing import Any, Literal, NamedTuple

from fastavro import schemaless_reader, schemaless_writer

from trunkline.core.errors import RejectedError
from trunkline.registry.fast_check import compile_check
from trunkline.registry.fast_read import Reader, compile_reader, has_index
from trunkline.registry.fast_write import compile_writer
from trunkline.registry.guard import DEFAULT_LIMITS, Guard, Limits, needs_guard
from trunkline.registry.precise import PreciseEncoder
from trunkline.registry.resolution import Resolution
from trunkline.registry.schema import WRAPPED, Schema, SchemaSource
from trunkline.registry.wire import PREFIX_SIZE, prefix, schema_id

__all__ = ["DEFAULT_LIMITS", "Decoder", "Encoder", "Limits"]


class _Plan(NamedTuple):
    schema: Schema
    parsed: Any
    guard: Guard
    guarded: bool
    """Whether the guard sees every datum, and not only what the generated code leaves to fastavro."""
    convert: Callable[[Any], Any] | None
    named: bool
    read: Reader | None
    walk: Reader | None
    """Where there is no `read`: goes past a datum and raises where `read` would. None where there is no index to look at."""


class Decoder:
    """Decodes values of any registered schema.

    With a `reader` every datum is brought to that schema by Avro's rules of resolution. `trust="external"` walks every datum
    before it is decoded. `belongs` is asked once about each schema that is met, and raises for one that such values can't have; what it
    refused it is asked about again. One decoder may be used by several threads.
    """

    def __init__(
        self,
        schemas: SchemaSource,
        *,
        reader: Schema | None = None,
        trust: Literal["internal", "external"] = "internal",
        limits: Limits = DEFAULT_LIMITS,
        belongs: Callable[[Schema], None] | None = None,
    ) -> None:
        self._schemas = schemas
        self._belongs = belongs
        self._reader = reader
        self._trust = trust
        self._limits = limits
        self._plans: dict[bytes, _Plan] = {}

    def decode(self, value: bytes) -> tuple[Schema, Any]:
        """The schema that the value was written with, and the datum.

        Raises RejectedError: `record.undecodable`, `record.too_large`, `record.unknown_schema`, or `record.schema_mismatch`
        where the reader's schema can't take it. What the schema source and `belongs` raise passes through.
        """
        try:
            plan = self._plans[value[:PREFIX_SIZE]]
        except (KeyError, TypeError):
            plan = self._learn(value)
        schema, parsed, guard, guarded, convert, named, read, walk = plan
        if read is not None:
            try:
                return schema, read(value)
            except Exception:  # noqa: BLE001 (the guard and fastavro decide, and say why)
                guarded = True
        elif walk is not None:
            try:
                walk(value)
            except Exception:  # noqa: BLE001
                guarded = True
        if guarded:
            guard.check(value, PREFIX_SIZE)
        body = BytesIO(value)
        body.seek(PREFIX_SIZE)
        try:
            datum = (
                schemaless_reader(body, parsed, return_named_type=True) if named else schemaless_reader(body, parsed)
            )
        except Exception as error:
            raise RejectedError(
                f"the value is no valid {schema.name} (schema id {schema.id}): {_reason(error)}",
                code="record.undecodable",
            ) from error
        if body.tell() != len(value):
            raise RejectedError(
                f"{len(value) - body.tell()} bytes are left after the {schema.name} (schema id {schema.id})",
                code="record.undecodable",
            )
        if convert is None:
            return schema, datum
        try:
            return schema, convert(datum)
        except RejectedError:
            raise
        except (ValueError, OverflowError, ArithmeticError) as error:
            reader = self._reader.name if self._reader is not None else ""
            raise RejectedError(
                f"a value of {schema.name} (schema id {schema.id}) has no counterpart in {reader}: {error}",
                code="record.schema_mismatch",
            ) from error

    def schema_of(self, value: bytes) -> Schema:
        """The schema that the value was written with. Raises as `decode` does."""
        return (self._plans.get(value[:PREFIX_SIZE]) or self._learn(value)).schema

    def plain_reader(self, value: bytes, wanted: Collection[str] | None = None) -> Callable[[bytes], Any] | None:
        """A function for values with this one's schema that gives the datum, or of a record the `wanted` fields alone.

        It raises (anything) for what `decode` would refuse, and may raise for more: `decode` has the last word. Of fields that are
        not wanted only the lengths are checked. None where values are guarded, or brought to another schema.
        """
        plan = self._plans.get(value[:PREFIX_SIZE]) or self._learn(value)
        if plan.guarded or plan.convert is not None:
            return None
        if wanted is not None:
            # I20: a field that is not wanted is skipped by its length, and every length is followed to the last byte.
            lazy = compile_reader(plan.schema.type, wanted)
            if lazy is not None:
                return lazy
        return plan.read or (lambda value: self.decode(value)[1])

    def _learn(self, value: bytes | None) -> _Plan:
        found = schema_id(value)
        assert value is not None
        schema = self._schemas.by_id(found)
        if self._belongs is not None:
            self._belongs(schema)
        guard = Guard(schema.type, self._limits)
        guarded = self._trust == "external" or needs_guard(schema.type)
        parsed, convert, named = schema.parsed, (_unwrapped if schema.wrapped else None), False
        if self._reader is not None and self._reader.text != schema.text:
            resolution = Resolution(schema, self._reader)
            parsed, convert, named = resolution.parsed, resolution.convert, resolution.named
        read = walk = None
        if not guarded and convert is None:
            read = compile_reader(schema.type)
        if not guarded and read is None and has_index(schema.type):
            walk = compile_reader(schema.type, ())
            guarded = walk is None
        plan = _Plan(schema, parsed, guard, guarded, convert, named, read, walk)
        self._plans[bytes(value[:PREFIX_SIZE])] = plan
        return plan


class Encoder:
    """Encodes data of one schema. `extra` says what a field gets that the schema does not know: an error, or nothing."""

    def __init__(self, schema: Schema, *, extra: Literal["error", "ignore"] = "error") -> None:
        if schema.id is None:
            raise ValueError(f"the schema {schema.name} has no id yet: register it first")
        self.schema = schema
        self._parsed = schema.parsed
        self._wrapped = schema.wrapped
        self._prefix = prefix(schema.id)
        self._check = compile_check(schema.type)
        self._write = compile_writer(schema.type, self._prefix)
        self._precise = PreciseEncoder(schema.type, ignore_extra=extra == "ignore")

    def encode(self, datum: Any) -> bytes:
        """The value in the wire format.

        Raises RejectedError (`record.schema_mismatch`) that names the field's path, what it takes, and what was found.
        """
        if self._write is not None:
            try:
                return self._write(datum)
            except Exception:  # noqa: BLE001, S110 (the long way decides, and says why)
                pass
        check = self._check
        if check is not None and check(datum):
            body = BytesIO()
            body.write(self._prefix)
            whole = {WRAPPED: datum} if self._wrapped else datum
            try:
                schemaless_writer(body, self._parsed, whole, strict_allow_default=True, disable_tuple_notation=True)
            except Exception:  # noqa: BLE001, S110 (the precise encoder decides, and says why)
                pass
            else:
                return body.getvalue()
        return self._prefix + self._precise.encode(datum)


_unwrapped: Callable[[Any], Any] = itemgetter(WRAPPED)


def _reason(error: Exception) -> str:
    if isinstance(error, EOFError):
        return "it ends too early"
    if isinstance(error, IndexError):
        return "it ends too early, or names a branch or symbol that the schema does not have"
    return str(error) or type(error).__name__
