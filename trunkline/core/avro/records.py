"""Record schemas as steps read and change them: fields by dotted path, derived names, named types kept defined.

A schema in Avro's JSON form defines a named type where it first occurs and refers to it afterwards. A step that drops the first
field would drop the definition with it, so a schema is taken apart into its named types here, and written again in the end.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from typing import Any

from trunkline.core.contracts import StepContext
from trunkline.core.errors import ConfigurationError, did_you_mean

PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_NAMED = frozenset({"record", "error", "enum", "fixed"})
_NAME_FORM = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class RecordSchema:
    """A record schema taken apart. `fields` are the root's, in their order, to be changed in place.

    In a field's type, a named type stands as its full name; `named` has the definitions.
    """

    def __init__(self, schema: Any, where: str) -> None:
        self.named: dict[str, dict[str, Any]] = {}
        self.where = where
        root = self._take_apart(schema, "")
        if not isinstance(root, str) or self.named.get(root, {}).get("type") not in ("record", "error"):
            raise ConfigurationError(
                "this step works on records, and the input's schema is none",
                where=where,
                hint="read a topic whose schema is an Avro record",
                code="step.not_a_record",
            )
        self.name: str = root

    @property
    def fields(self) -> list[dict[str, Any]]:
        """The fields of the root record."""
        found: list[dict[str, Any]] = self.named[self.name]["fields"]
        return found

    @fields.setter
    def fields(self, fields: list[dict[str, Any]]) -> None:
        self.named[self.name]["fields"] = fields

    def record_in(self, kind: Any) -> str | None:
        """The full name of the record that a field's type holds: the type itself, or the only branch beside null."""
        branches = branches_of(kind)
        if len(branches) == 1 and isinstance(branches[0], str):
            found = self.named.get(branches[0])
            if found is not None and found["type"] in ("record", "error"):
                return branches[0]
        return None

    def field(self, path: str) -> dict[str, Any]:
        """The field at a dotted path. Raises `ConfigurationError` (`step.unknown_field`) with the nearest name."""
        owner, seen = self.name, ""
        *parents, last = path.split(".")
        for part in parents:
            found = self._own_field(owner, part, seen)
            seen = f"{seen}{part}."
            inner = self.record_in(found["type"])
            if inner is None:
                raise ConfigurationError(
                    f"{seen[:-1]!r} is no record, so it has no field {last!r}",
                    where=self.where,
                    code="step.unknown_field",
                )
            owner = inner
        return self._own_field(owner, last, seen)

    def own_record_at(self, path: str, context: StepContext) -> list[dict[str, Any]]:
        """The fields of the record that holds the field `path`, to be changed.

        A nested record gets a name of its own first, since the type may be used elsewhere too.
        """
        parents = path.split(".")[:-1]
        for depth in range(len(parents)):
            place = parents[: depth + 1]
            field = self.field(".".join(place))
            name = self.record_in(field["type"])
            if name is None:
                raise ConfigurationError(
                    f"{'.'.join(place)!r} is no record", where=self.where, code="step.not_a_record"
                )
            suffix = "_".join([*place, *_pipeline_name(context.pipeline)])
            derived = name if name.endswith(f"_{suffix}") else f"{name}_{suffix}"
            if derived != name:
                self.named[derived] = {**copy.deepcopy(self.named[name]), "name": derived}
                field["type"] = _replaced(field["type"], name, derived)
        if not parents:
            return self.fields
        owner = self.record_in(self.field(".".join(parents))["type"])
        assert owner is not None
        found: list[dict[str, Any]] = self.named[owner]["fields"]
        return found

    def set_type(self, path: str, kind: Any, context: StepContext) -> None:
        """Gives the field at `path` another type. A default that the new type may not take goes."""
        self.field(path)
        name = path.rpartition(".")[2]
        for field in self.own_record_at(path, context):
            if field["name"] == name:
                field["type"] = kind
                if field.get("default") is not None or not _null_first(kind):
                    field.pop("default", None)

    def foreign_type(self, kind: Any) -> Any:
        """A type in Avro's JSON form as a type of this schema: its definitions are added."""
        return self._take_apart(kind, self.name.rpartition(".")[0])

    def rename(self, context: StepContext) -> None:
        """Names the changed record after the pipeline, so that two schemas never share a name: `Flight_delayed_flights`."""
        suffix = "_".join(_pipeline_name(context.pipeline))
        if suffix and not self.name.endswith(f"_{suffix}"):
            derived = f"{self.name}_{suffix}"
            self.named[derived] = {**copy.deepcopy(self.named[self.name]), "name": derived}
            self.name = derived

    def written(self, kind: Any) -> Any:
        """A type of this schema in Avro's JSON form, with the definitions that it needs."""
        return self._written(kind, set(), "")

    def json(self) -> dict[str, Any]:
        """The schema in Avro's JSON form: each named type defined where it first occurs."""
        written: dict[str, Any] = self._written(self.name, set(), "")
        return written

    def _own_field(self, owner: str, name: str, seen: str) -> dict[str, Any]:
        fields: list[dict[str, Any]] = self.named[owner]["fields"]
        for field in fields:
            if field["name"] == name:
                return field
        raise ConfigurationError(
            f"{owner} has no field {name!r}" if not seen else f"{seen[:-1]!r} has no field {name!r}",
            where=self.where,
            hint=did_you_mean(name, [str(field["name"]) for field in fields]),
            code="step.unknown_field",
        )

    def _take_apart(self, kind: Any, namespace: str) -> Any:
        if isinstance(kind, list):
            return [self._take_apart(branch, namespace) for branch in kind]
        if isinstance(kind, str):
            return self._full(kind, namespace)
        inner = kind["type"]
        if isinstance(inner, (dict, list)):
            return self._take_apart(inner, namespace)
        if inner in _NAMED:
            return self._define(kind, namespace)
        result = dict(kind)
        for part in ("items", "values"):
            if part in result:
                result[part] = self._take_apart(result[part], namespace)
        return result if len(result) > 1 else self._full(inner, namespace)

    def _define(self, kind: Mapping[str, Any], namespace: str) -> str:
        name = str(kind["name"])
        space = name.rpartition(".")[0] or str(kind.get("namespace", namespace) or "")
        full = name if "." in name or not space else f"{space}.{name}"
        definition = {key: copy.deepcopy(value) for key, value in kind.items() if key not in ("namespace", "fields")}
        definition["name"] = full
        self.named[full] = definition
        if "fields" in kind:
            definition["fields"] = [
                {
                    name: self._take_apart(value, space) if name == "type" else copy.deepcopy(value)
                    for name, value in field.items()
                }
                for field in kind["fields"]
            ]
        return full

    def _full(self, name: str, namespace: str) -> str:
        if name in PRIMITIVES or name in self.named or "." in name or not namespace:
            return name
        return f"{namespace}.{name}" if f"{namespace}.{name}" in self.named else name

    def _written(self, kind: Any, defined: set[str], namespace: str) -> Any:
        if isinstance(kind, list):
            return [self._written(branch, defined, namespace) for branch in kind]
        if isinstance(kind, dict):
            return {
                key: self._written(value, defined, namespace) if key in ("items", "values") else value
                for key, value in kind.items()
            }
        definition = self.named.get(kind)
        if definition is None or kind in defined:
            return kind
        defined.add(kind)
        space, _, short = kind.rpartition(".")
        result = {**definition, "name": short}
        if space != namespace:
            result["namespace"] = space
        if "fields" in definition:
            result["fields"] = [
                {**field, "type": self._written(field["type"], defined, space)} for field in definition["fields"]
            ]
        return result


def branches_of(kind: Any) -> list[Any]:
    """The branches of a type beside null; a type that is no union is its own only branch."""
    return [branch for branch in kind if branch != "null"] if isinstance(kind, list) else [kind]


def is_nullable(kind: Any) -> bool:
    """Whether the type takes null."""
    return kind == "null" or (isinstance(kind, list) and "null" in kind)


def nullable(kind: Any) -> Any:
    """The type, or null."""
    if is_nullable(kind):
        return kind
    return ["null", *kind] if isinstance(kind, list) else ["null", kind]


def like(old: Any, new: Any) -> Any:
    """`new`, nullable where `old` is, with null in its old place."""
    if not isinstance(old, list) or "null" not in old:
        return new
    return ["null", new] if old[0] == "null" else [new, "null"]


def logical_or_kind(kind: Any) -> str:
    """What a type is called: its logical type, else its kind (`record`, `array`, `long`, …) or full name."""
    if isinstance(kind, dict):
        return str(kind.get("logicalType") or kind["type"])
    return str(kind)


def walk_to(path: str) -> tuple[tuple[str, ...], str]:
    """A dotted path as the names of the records on the way, and the field's own."""
    *parents, last = path.split(".")
    return tuple(parents), last


def holder(value: Any, parents: tuple[str, ...]) -> dict[str, Any] | None:
    """The record within `value` at the end of `parents`, or None where one on the way is null or absent."""
    for name in parents:
        if value is None:
            return None
        value = value.get(name)
    found: dict[str, Any] | None = value
    return found


def is_name(text: str) -> bool:
    """Whether Avro takes it as a field's name (Avro specification, "Names")."""
    return _NAME_FORM.fullmatch(text) is not None


def _pipeline_name(pipeline: str) -> Iterator[str]:
    cleaned = re.sub(r"[^A-Za-z0-9_]", "_", pipeline)
    if cleaned:
        yield cleaned


def _replaced(kind: Any, old: str, new: str) -> Any:
    if isinstance(kind, list):
        return [_replaced(branch, old, new) for branch in kind]
    return new if kind == old else kind


def _null_first(kind: Any) -> bool:
    return kind == "null" or (isinstance(kind, list) and kind[:1] == ["null"])
