"""The types of a schema as objects: names resolved, references followed. A recursive record is a cycle among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

PRIMITIVES: Final = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
NAMED: Final = frozenset({"record", "enum", "fixed"})
INT_MIN, INT_MAX = -(2**31), 2**31 - 1
LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1
_SHOWN_BRANCHES: Final = 8
_SHOWN_LETTERS: Final = 200


@dataclass(slots=True, eq=False)
class Field:
    """A field of a record; `default` is in JSON form, and means something only where `has_default`."""

    name: str
    type: AvroType
    has_default: bool = False
    default: Any = None
    aliases: tuple[str, ...] = ()
    doc: str | None = None
    props: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class AvroType:
    """One type. `kind` is the Avro type's own word, or `union`; which other attributes are set follows from it.

    `logical` is set only for a logical type that is valid where it stands: the specification has readers ignore any other.
    """

    kind: str
    name: str = ""
    aliases: tuple[str, ...] = ()
    doc: str | None = None
    fields: list[Field] = field(default_factory=list)
    symbols: tuple[str, ...] = ()
    symbol_default: str | None = None
    size: int = 0
    items: AvroType | None = None
    branches: tuple[AvroType, ...] = ()
    logical: str | None = None
    precision: int = 0
    scale: int = 0
    props: dict[str, Any] = field(default_factory=dict)
    _by_name: dict[str, Field] | None = field(default=None, init=False, repr=False)
    _symbol_set: frozenset[str] | None = field(default=None, init=False, repr=False)
    _alias_set: frozenset[str] | None = field(default=None, init=False, repr=False)

    @property
    def element(self) -> AvroType:
        """The type of an array's items or a map's values."""
        assert self.items is not None
        return self.items

    @property
    def parts(self) -> list[AvroType]:
        """The types one level below, in the order in which they are written."""
        if self.items is not None:
            return [self.items]
        return [each.type for each in self.fields] if self.fields else list(self.branches)

    @property
    def label(self) -> str:
        """The type as a reader of a message would call it: `int`, `flights.Departed`, `null or string`."""
        if self.kind == "union":
            shown = [branch.label for branch in self.branches[:_SHOWN_BRANCHES]]
            return " or ".join([*shown, "…"] if len(self.branches) > _SHOWN_BRANCHES else shown)
        if self.name:
            return shortened(self.name)
        if self.logical:
            return f"{self.kind} ({self.logical})"
        return f"{self.kind} of {self.element.label}" if self.kind in {"array", "map"} else self.kind

    def field_named(self, name: str) -> Field | None:
        """The record's field of that name. To be asked once all fields are there."""
        if self._by_name is None:
            self._by_name = {each.name: each for each in self.fields}
        return self._by_name.get(name)

    def has_symbol(self, symbol: object) -> bool:
        """Whether the enum has the symbol."""
        if self._symbol_set is None:
            self._symbol_set = frozenset(self.symbols)
        return isinstance(symbol, str) and symbol in self._symbol_set

    def has_alias(self, name: str) -> bool:
        """Whether the named type is also called so."""
        if self._alias_set is None:
            self._alias_set = frozenset(self.aliases)
        return name in self._alias_set


def shortened(name: str) -> str:
    """A name in a message."""
    return name if len(name) <= _SHOWN_LETTERS else f"{name[: _SHOWN_LETTERS - 1]}…"
