"""Which branch of a union a value takes, found once for each value and type.

fastavro tries the branches anew at each level, to check and to write: N^d tries for a value d levels deep, where unions that leave a
choice stand inside each other (`choices`). For such schemas this walk goes first. What fits which scalar type stays fastavro's
decision, and of several records that fit the first with the most of the value's fields is taken, as fastavro does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from fastavro.validation import validate

from trunkline.core.casting_scalars import MismatchError

_RECORDS: Final = frozenset({"record", "error"})
_NAMED: Final = _RECORDS | {"enum", "fixed"}
_MISSING: Final = object()


class Fitting:
    """Walks data of one schema, given as `fastavro.parse_schema` gives it. May be used by several threads."""

    def __init__(self, parsed: Any) -> None:
        self._root = parsed
        self._named: dict[str, Any] = {}
        waiting = [parsed]
        while waiting:
            waiting.extend(_parts(waiting.pop(), self._named))

    def with_branches(self, datum: Any, *, whole: bool) -> Any:
        """`datum` with each object and list in a union as a pair of its branch's name and itself: fastavro's tuple notation.

        Raises `MismatchError` that names the field. With `whole`, a field that is absent must have a default everywhere; without,
        only where that decides on a branch, and the rest is left to the writer.
        """
        try:
            return _Walk(self._named).part(self._root, datum, judged=whole)
        except RecursionError:
            raise MismatchError("a value that is not nested so deeply", "one that is") from None


class _Walk:
    """One datum's."""

    def __init__(self, named: Mapping[str, Any]) -> None:
        self._named = named
        self._known: dict[tuple[int, int, bool], Any] = {}
        """By type and value: what it became, or the error."""

    def part(self, node: Any, value: Any, *, judged: bool) -> Any:
        if isinstance(node, str):
            node = self._named.get(node, node)
        if isinstance(node, list):
            return self._branch(node, value)
        kind = node["type"] if isinstance(node, Mapping) else node
        if isinstance(kind, (Mapping, list)) or kind in self._named:
            return self.part(kind, value, judged=judged)
        if kind not in _RECORDS and kind not in ("map", "array"):
            return self._scalar(node, kind, value, judged=judged)
        wanted = (list, tuple) if kind == "array" else Mapping
        if not isinstance(value, wanted):
            raise MismatchError(str(node.get("name", kind)), _type_of(value))
        key = id(node), id(value), judged
        found = self._known.get(key)
        if found is None:
            try:
                found = self._structure(node, kind, value, judged=judged)
            except MismatchError as error:
                self._known[key] = error.copy()
                raise
            self._known[key] = found
        if isinstance(found, MismatchError):
            raise found.copy()
        return found

    def _structure(self, node: Any, kind: str, value: Any, *, judged: bool) -> Any:
        step = ""
        try:
            if kind == "array":
                items: list[Any] = []
                for number, item in enumerate(value):
                    step = f"[{number}]"
                    items.append(self.part(node["items"], item, judged=judged))
                return items
            made = dict(value)
            if kind == "map":
                for step, item in value.items():
                    if not isinstance(step, str):
                        raise MismatchError("text as the map's key", _type_of(step))
                    made[step] = self.part(node["values"], item, judged=judged)
                return made
            if value.get("-type", node["name"]) != node["name"]:
                raise MismatchError(str(node["name"]), str(value["-type"])[:60])
            for field in node["fields"]:
                step = field["name"]
                found = value.get(step, field.get("default", _MISSING))
                if found is not _MISSING:
                    part = self.part(field["type"], found, judged=judged)
                    if step in value:
                        made[step] = part
                elif judged:
                    raise MismatchError("a value", "nothing")
        except MismatchError as error:
            error.inside(str(step))
            raise
        return made

    def _branch(self, union: list[Any], value: Any) -> Any:
        if not isinstance(value, (Mapping, list, tuple)):
            if any(self._takes(branch, value) for branch in union):
                return value
            raise MismatchError(_names(union), _type_of(value))
        best, most, made = None, -1, None
        for branch in union:
            try:
                found = self.part(branch, value, judged=True)
            except MismatchError:
                continue
            record = self._named.get(_name_of(branch), branch)
            fields = record.get("fields") if isinstance(record, Mapping) else None
            if fields is None:
                best, made = branch, found
                break
            count = sum(field["name"] in value for field in fields)
            if count > most:
                best, most, made = branch, count, found
        if best is None:
            raise MismatchError(_names(union), _type_of(value))
        return (_name_of(best), made)

    def _takes(self, branch: Any, value: Any) -> bool:
        try:
            self.part(branch, value, judged=True)
        except MismatchError:
            return False
        return True

    @staticmethod
    def _scalar(node: Any, kind: str, value: Any, *, judged: bool) -> Any:
        if judged and not validate(value, node, raise_errors=False):
            raise MismatchError(str(kind), _type_of(value))
        return value


def _parts(node: Any, named: dict[str, Any]) -> Iterator[Any]:
    if isinstance(node, list):
        yield from node
    elif isinstance(node, Mapping):
        if node.get("type") in _NAMED:
            named[node["name"]] = node
        for one in ("type", "items", "values"):
            if isinstance(node.get(one), (Mapping, list)):
                yield node[one]
        for field in node.get("fields", ()):
            yield field["type"]


def _name_of(branch: Any) -> str:
    """What fastavro calls a branch."""
    kind = branch["type"] if isinstance(branch, Mapping) else branch
    return str(branch["name"] if isinstance(branch, Mapping) and kind in _NAMED else kind)


def _names(union: list[Any]) -> str:
    told = [_name_of(branch) for branch in union]
    return " or ".join([*told[:8], "…"] if len(told) > 8 else told)


def _type_of(value: Any) -> str:
    return "null" if value is None else type(value).__name__
