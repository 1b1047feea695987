"""The `map` step: chooses, removes, renames and computes the fields of a record."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import model_validator

from trunkline.core.avro.assignment import settled
from trunkline.core.avro.records import RecordSchema, holder, is_name, is_nullable, walk_to
from trunkline.core.contracts import Step, StepContext
from trunkline.core.errors import ConfigurationError, RejectedError, TrunklineError
from trunkline.core.event import Event
from trunkline.core.expressions import Expression, compile_expression
from trunkline.core.plain import WHOLE_EVENT, PlainWork, reads_of
from trunkline.core.settings import Settings, setting

_SHARED_KINDS = frozenset({"list", "map", "object", "dyn"})
_Evaluate = Callable[[Any, Any], Any]
_Edit = Callable[[dict[str, Any]], None]
_Work = Callable[[dict[str, Any], Event | None], None]


class MapSettings(Settings):
    """How the new record comes from the old one: every expression sees the record as it came in; then `keep`, `drop`, `rename`
    and at last the fields of `set` take effect, in this order."""

    keep: Literal["all", "none"] | list[str] = setting(
        "all",
        description="Which fields of the input stay: all, none, or those listed.",
        examples=["all", ["carrier", "flight"]],
    )
    drop: list[str] = setting(
        [], description="Fields to remove; `a.b` is the field b of the record a.", examples=[["year", "month", "day"]]
    )
    rename: dict[str, str] = setting(
        {}, description="New names of fields, as `old: new`.", examples=[{"dep_delay": "delay"}]
    )
    set: dict[str, str] = setting(
        {},
        description="Fields to set, each to the value of a CEL expression over the input; `a.b` is the field b of the record a.",
        examples=[{"minutes": "int(event.dep_delay)"}],
    )

    @model_validator(mode="after")
    def _does_something_once(self) -> MapSettings:
        for name in [*self.rename.values(), *(part for path in self.set for part in path.split("."))]:
            if not is_name(name):
                raise ValueError(f"{name!r} can't be a field's name: letters, digits and _ are, a digit not first")
        if isinstance(self.keep, list) and len(set(self.keep)) != len(self.keep):
            raise ValueError("`keep` names a field twice")
        for name in self.drop:
            if name in self.set:
                raise ValueError(
                    f"{name!r} is both set and dropped: `drop` is not needed, since `set` replaces a field"
                )
            if name in self.rename:
                raise ValueError(f"{name!r} is both renamed and dropped")
        targets = list(self.rename.values())
        twice = next((name for name in targets if targets.count(name) > 1 or name in self.set), None)
        if twice is not None:
            raise ValueError(f"two fields would be called {twice!r}")
        return self


class MapStep(Step):
    """Makes a new record of an event's value.

    The schema of the result is that of the topic written to, where this is the last step and the result can be written with it; else
    it is derived from the input's schema and the types of the expressions, and called `<Input>_<pipeline>`. Without an
    input schema nothing is checked before the first event.
    """

    settings_type = MapSettings
    summary: ClassVar[str] = "Keeps, drops, renames and computes fields."

    settings: MapSettings
    _work: _Work
    _needs_event: bool

    def prepare(self, context: StepContext) -> Any | None:
        settings = self.settings
        expressions = {
            name: compile_expression(text, schema=context.schema, where=f"{context.where}.set.{name}")
            for name, text in settings.set.items()
        }
        computed = [(name, _unshared(found)) for name, found in expressions.items()]
        self._work = _working(computed, _reshaping(settings))
        self._needs_event = reads_of(expressions.values()) is WHOLE_EVENT
        if context.schema is None:
            return context.target
        return self._derived(expressions, context)

    def process(self, event: Event) -> Event:
        self._work(event.value, event)
        event.changed = True
        return event

    def plain(self) -> PlainWork | None:
        return None if self._needs_event else PlainWork(self._work, changes=True)

    def _derived(self, expressions: dict[str, Expression], context: StepContext) -> Any:
        schema, settings = RecordSchema(context.schema, context.where), self.settings
        before = copy.deepcopy(schema.fields)
        for name in [*settings.drop, *settings.rename, *(settings.keep if isinstance(settings.keep, list) else ())]:
            schema.field(name)
        _check_kept(settings, context.where)
        for path in settings.drop:
            fields, name = schema.own_record_at(path, context), path.rpartition(".")[2]
            fields[:] = [field for field in fields if field["name"] != name]
        schema.fields = [field for field in schema.fields if _stays(settings, field["name"])]
        for field in schema.fields:
            if field["name"] in settings.rename:
                field["name"] = settings.rename[field["name"]]
                field.pop("aliases", None)
        # A field that is set takes the name's place, so the renamed one must not have it.
        _check_names(schema, settings, context.where)
        for path, expression in expressions.items():
            _put(schema, path, expression, context)
        if schema.fields == before:
            return context.schema
        schema.rename(context)
        return settled(schema, context)


def _stays(settings: MapSettings, name: str) -> bool:
    if isinstance(settings.keep, list):
        # A renamed field is kept: its new name would be for nothing otherwise.
        return name in settings.keep or name in settings.rename
    return settings.keep == "all" or name in settings.rename


def _check_kept(settings: MapSettings, where: str) -> None:
    if isinstance(settings.keep, list):
        both = next((name for name in settings.keep if name in settings.drop), None)
        if both is not None:
            raise ConfigurationError(f"{both!r} is both kept and dropped", where=where, code="map.contradiction")


def _check_names(schema: RecordSchema, settings: MapSettings, where: str) -> None:
    names = [field["name"] for field in schema.fields]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(
            f"two fields would be called {twice!r}",
            where=f"{where}.rename",
            hint="drop one of them",
            code="map.name_taken",
        )
    if not names and not settings.set:
        raise ConfigurationError("no field is left", where=where, hint="keep or set one", code="map.empty")


def _put(schema: RecordSchema, path: str, expression: Expression, context: StepContext) -> None:
    name = path.rpartition(".")[2]
    kind = _type_of(path, expression, context)
    fields = schema.own_record_at(path, context)
    field: dict[str, Any] = {"name": name, "type": schema.foreign_type(kind)}
    if is_nullable(kind) and (kind == "null" or kind[0] == "null"):
        field["default"] = None
    for index, old in enumerate(fields):
        if old["name"] == name:
            if old["type"] != field["type"]:
                fields[index] = field | ({"doc": old["doc"]} if "doc" in old else {})
            return
    fields.append(field)


def _type_of(path: str, expression: Expression, context: StepContext) -> Any:
    if context.target is not None:
        target = RecordSchema(context.target, context.where)
        if expression.type.is_dyn:
            # Only the evaluation knows the type: the encoder takes or refuses each value.
            taken = _with_definitions(target, path)
            if taken is not None:
                return taken
    try:
        return expression.avro_schema
    except TrunklineError as error:
        raise ConfigurationError(
            error.message, where=f"{context.where}.set.{path}", hint=error.hint, code=error.code
        ) from error


def _with_definitions(target: RecordSchema, path: str) -> Any | None:
    try:
        kind = target.field(path)["type"]
    except ConfigurationError:
        return None
    return target.written(kind)


def _reshaping(settings: MapSettings) -> _Edit | None:
    """What `keep`, `drop` and `rename` do to a value; None where they leave it alone."""
    nested = [walk_to(path) for path in settings.drop if "." in path]
    flat = [path for path in settings.drop if "." not in path]
    renamed = list(settings.rename.items())
    keep = settings.keep

    def reshape(value: dict[str, Any]) -> None:
        for parents, name in nested:
            record = holder(value, parents)
            if record is not None:
                record.pop(name, None)
        for name in flat:
            value.pop(name, None)
        # All are taken out before any is put back, so that two fields can change their names.
        moved = [(new, value.pop(old)) for old, new in renamed if old in value]
        if keep != "all":
            kept = {} if keep == "none" else {name: value[name] for name in keep if name in value}
            value.clear()
            value.update(kept)
        value.update(moved)

    def drop_one(value: dict[str, Any]) -> None:
        value.pop(only, None)

    def drop_flat(value: dict[str, Any]) -> None:
        pop = value.pop
        for name in flat:
            pop(name, None)

    if keep != "all" or renamed or nested:
        return reshape
    if len(flat) == 1:
        only = flat[0]
        return drop_one
    return drop_flat if flat else None


def _working(computed: list[tuple[str, _Evaluate]], reshape: _Edit | None) -> _Work:
    """All that is done to a value, in one function made for how much that is: it runs for every event."""
    edit = reshape or _nothing
    if any("." in path for path, _ in computed):
        return _nested_work(computed, edit)
    if len(computed) == 1:
        only, evaluate_only = computed[0]

        def one(value: dict[str, Any], event: Event | None) -> None:
            found = evaluate_only(value, event)
            edit(value)
            value[only] = found

        return one
    names = [name for name, _ in computed]
    functions = [evaluate for _, evaluate in computed]

    if reshape is None and len(computed) == 2:
        (first, evaluate_first), (second, evaluate_second) = computed

        def two(value: dict[str, Any], event: Event | None) -> None:
            value[first], value[second] = evaluate_first(value, event), evaluate_second(value, event)

        return two

    def several(value: dict[str, Any], event: Event | None) -> None:
        found = [evaluate(value, event) for evaluate in functions]
        edit(value)
        value.update(zip(names, found, strict=True))

    return several


def _nested_work(computed: list[tuple[str, _Evaluate]], edit: _Edit) -> _Work:
    places = [(*walk_to(path), path, evaluate) for path, evaluate in computed]

    def nested(value: dict[str, Any], event: Event | None) -> None:
        found = [evaluate(value, event) for *_, evaluate in places]
        edit(value)
        for (parents, name, path, _), result in zip(places, found, strict=True):
            record = holder(value, parents)
            if record is None:
                raise RejectedError(f"{path!r} can't be set: {'.'.join(parents)!r} is null", code="map.no_parent")
            record[name] = result

    return nested


def _nothing(_value: dict[str, Any]) -> None:
    """What `keep: all` does alone."""


def _unshared(expression: Expression) -> _Evaluate:
    """The expression's function; where it may give a part of the input, a copy of it: a later step changes values in place."""
    evaluate: _Evaluate = expression.fn if expression.path is None else expression.datum
    if expression.type.kind == "uint":
        return lambda value, event: int(evaluate(value, event))  # Avro's encoder knows `int` alone
    if expression.type.kind not in _SHARED_KINDS:
        return evaluate

    def copied(value: Any, event: Any) -> Any:
        found = evaluate(value, event)
        return copy.deepcopy(found) if isinstance(found, (dict, list)) else found

    return copied
