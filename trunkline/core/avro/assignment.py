"""Whether what a stream's last step gives can be written to the topic it goes to, found before anything runs."""

from __future__ import annotations

from typing import Any

from trunkline.core.avro.records import RecordSchema, branches_of, is_nullable
from trunkline.core.contracts import StepContext
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.expressions import type_of_avro

_NUMBERS = frozenset({"int", "long", "float", "double"})
_INTEGERS = frozenset({"int", "long"})
_TEXTS = frozenset({"string", "enum"})
_BINARY = frozenset({"bytes", "fixed"})


def settled(derived: RecordSchema, context: StepContext) -> Any:
    """The schema that a step gives: the target's where there is one and `derived` can be written with it, else `derived`.

    Raises `ConfigurationError` (`step.target_schema`) for what could never be written: a field that the target does not know, a
    field that it needs and does not get, a type that has nothing in common with the target's.
    """
    if context.target is None:
        return derived.json()
    target = RecordSchema(context.target, context.where)
    _Check(derived, target, context.where).records(derived.name, target.name, "")
    return context.target


def check_assignable(given: Any, taken: Any, where: str) -> None:
    """Raises `ConfigurationError` (`step.target_schema`) where no value of the schema `given` can be written with `taken`."""
    if given == taken:
        return
    kinds = [type_of_avro(one) for one in (given, taken)]
    if any(kind.kind != "object" for kind in kinds):
        if kinds[0].kind != kinds[1].kind and not any(kind.is_dyn for kind in kinds):
            raise _unfit(f"the value is a {kinds[0]}, and the target's schema wants a {kinds[1]}", None, where)
        return
    derived, target = RecordSchema(given, where), RecordSchema(taken, where)
    _Check(derived, target, where).records(derived.name, target.name, "")


class _Check:
    """Whether values of one schema can be written with another. Two records are compared once, however often they meet."""

    def __init__(self, given: RecordSchema, taken: RecordSchema, where: str) -> None:
        self._given = given
        self._taken = taken
        self._where = where
        self._done: set[tuple[str, str]] = set()

    def records(self, given_name: str, taken_name: str, path: str) -> None:
        if (given_name, taken_name) in self._done:
            return
        self._done.add((given_name, taken_name))
        found = {field["name"]: field for field in self._given.named[given_name]["fields"]}
        wanted = {field["name"]: field for field in self._taken.named[taken_name]["fields"]}
        for name, field in found.items():
            if name not in wanted:
                raise _unfit(
                    f"the target's schema {taken_name} has no field {path + name!r}",
                    did_you_mean(name, wanted),
                    self._where,
                )
            self._types(field["type"], wanted[name]["type"], path + name)
        for name, field in wanted.items():
            if name not in found and "default" not in field:
                raise _unfit(
                    f"the target's schema {taken_name} needs the field {path + name!r}, which nothing gives",
                    "set it with a `map` step, or give it a default in the schema",
                    self._where,
                )

    def _types(self, kind: Any, wanted: Any, path: str) -> None:
        given, taken = self._given, self._taken
        inner, outer = given.record_in(kind), taken.record_in(wanted)
        if inner is not None and outer is not None:
            if inner != given.name and outer != taken.name and path.count(".") < 16:
                self.records(inner, outer, f"{path}.")
            return
        if is_nullable(kind) and is_nullable(wanted):
            return
        kinds = [_shape(given, branch) for branch in branches_of(kind)]
        takers = [_shape(taken, branch) for branch in branches_of(wanted)]
        if not any(_may_hold(taker, one) for one in set(kinds) for taker in set(takers)):
            raise _unfit(
                f"{path!r} is {' or '.join(kinds[:20]) or 'null'}, and the target's schema wants {' or '.join(takers[:20]) or 'null'}",
                "convert it in a `cast` or `map` step",
                self._where,
            )


def _shape(schema: RecordSchema, kind: Any) -> str:
    if isinstance(kind, dict):
        return str(kind["type"])
    return str(schema.named[kind]["type"]) if kind in schema.named else str(kind)


def _may_hold(taker: str, given: str) -> bool:
    """Whether some value of the one may be written as the other: what depends on the value is left to the encoder."""
    if taker == given or {taker, given} <= _TEXTS or {taker, given} <= _BINARY:
        return True
    if taker in _NUMBERS and given in _INTEGERS:
        return True
    return (taker in {"float", "double"} and given in _NUMBERS) or {taker, given} == {"record", "map"}


def _unfit(message: str, hint: str | None, where: str) -> ConfigurationError:
    return ConfigurationError(message, where=where, hint=hint, code="step.target_schema")
