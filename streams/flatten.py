"""The `flatten` step: the fields of nested records become fields of the record itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from pydantic import field_validator

from trunkline.core.avro.assignment import settled
from trunkline.core.avro.records import RecordSchema, is_name, is_nullable, nullable
from trunkline.core.contracts import Step, StepContext
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.settings import Settings, setting

_DEEPEST = 32
_Flatten = Callable[[dict[str, Any]], dict[str, Any]]


class FlattenSettings(Settings):
    """How nested records are laid flat. `flatten:` alone takes the defaults."""

    separator: str = setting(
        "_", description="What stands between the names of a path: the b of a becomes a_b.", max_length=10
    )
    depth: int = setting(
        _DEEPEST, description="How many levels are laid flat; deeper records stay as they are.", ge=1, le=_DEEPEST
    )

    @field_validator("separator")
    @classmethod
    def _fits_into_names(cls, value: str) -> str:
        if not is_name(f"a{value}b"):
            raise ValueError("letters, digits and _ can stand in a field's name, nothing else")
        return value


class FlattenStep(Step):
    """Lays nested records flat. Lists and maps stay as they are; of a record that is null, every field is null."""

    settings_type = FlattenSettings
    summary: ClassVar[str] = "Lays nested records flat: the b of a becomes a_b."

    settings: FlattenSettings
    _flatten: _Flatten | None

    @classmethod
    def parse(cls, raw: Any) -> Settings:
        return super().parse({} if raw is None else raw)

    def prepare(self, context: StepContext) -> Any | None:
        separator = self.settings.separator
        if context.schema is None:
            self._flatten = _by_value(separator, self.settings.depth)
            return context.target
        schema = RecordSchema(context.schema, context.where)
        layout = _Layout(schema, separator, self.settings.depth)
        layout.add(schema.name, (), nulls=False)
        if not layout.nested:
            self._flatten = None
            return context.schema
        self._flatten = _by_layout(layout.places)
        schema.fields = layout.fields
        schema.rename(context)
        return settled(schema, context)

    def process(self, event: Event) -> Event:
        if self._flatten is not None:
            event.value = self._flatten(event.value)
            event.changed = True
        return event


class _Layout:
    """The fields of the flat record, each with the path that its value comes from."""

    def __init__(self, schema: RecordSchema, separator: str, depth: int) -> None:
        self._schema = schema
        self._separator = separator
        self._depth = depth
        self._taken: dict[str, tuple[str, ...]] = {}
        self.fields: list[dict[str, Any]] = []
        self.places: list[tuple[str, tuple[str, ...]]] = []
        self.nested = False

    def add(self, record: str, path: tuple[str, ...], *, nulls: bool) -> None:
        """The fields of `record`, which stands at `path` and may be null with `nulls`."""
        for field in self._schema.named[record]["fields"]:
            place = (*path, field["name"])
            inner = self._schema.record_in(field["type"])
            if inner is None or len(path) >= self._depth:
                self._leaf(field, place, nulls=nulls)
                continue
            if len(path) + 1 >= _DEEPEST:
                raise ConfigurationError(
                    f"{'.'.join(place[:4])}… goes on without an end",
                    where=self._schema.where,
                    hint="say with `depth` how far to lay it flat",
                    code="flatten.recursive",
                )
            self.nested = True
            self.add(inner, place, nulls=nulls or is_nullable(field["type"]))

    def _leaf(self, field: dict[str, Any], place: tuple[str, ...], *, nulls: bool) -> None:
        name = self._separator.join(place)
        if name in self._taken:
            raise ConfigurationError(
                f"{'.'.join(place)} and {'.'.join(self._taken[name])} would both be called {name!r}",
                where=self._schema.where,
                hint="choose another `separator`",
                code="flatten.name_taken",
            )
        self._taken[name] = place
        self.places.append((name, place))
        flat = {**field, "name": name}
        if nulls:
            flat["type"] = nullable(field["type"])
            if flat.get("default") is not None:
                del flat["default"]  # the first branch is null now, which a default must be of
        if len(place) > 1:
            flat.pop("aliases", None)
        self.fields.append(flat)


def _by_layout(places: list[tuple[str, tuple[str, ...]]]) -> _Flatten:
    top = [(name, place[0]) for name, place in places if len(place) == 1]
    deep = [(name, place) for name, place in places if len(place) > 1]
    order = [name for name, _ in places]

    def flatten(value: dict[str, Any]) -> dict[str, Any]:
        flat: dict[str, Any] = dict.fromkeys(order)
        for name, field in top:
            if field in value:
                flat[name] = value[field]
            else:
                del flat[name]  # its default is the encoder's matter
        for name, place in deep:
            found: Any = value
            for part in place:
                found = found.get(part)
                if found is None:
                    break
            flat[name] = found
        return flat

    return flatten


def _by_value(separator: str, depth: int) -> _Flatten:
    def lay(value: dict[str, Any], prefix: str, level: int, flat: dict[str, Any]) -> None:
        for name, found in value.items():
            full = f"{prefix}{name}"
            if isinstance(found, dict) and level < depth:
                lay(found, f"{full}{separator}", level + 1, flat)
            elif full in flat:
                raise RejectedError(f"two fields would be called {full!r}", code="flatten.name_taken")
            else:
                flat[full] = found

    def flatten(value: dict[str, Any]) -> dict[str, Any]:
        flat: dict[str, Any] = {}
        lay(value, "", 0, flat)
        return flat

    return flatten
