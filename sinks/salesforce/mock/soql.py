"""A subset of SOQL: SELECT fields FROM object [WHERE a AND b] [ORDER BY f [DESC]] [LIMIT n] [OFFSET n], and COUNT().

Grammar: https://developer.salesforce.com/docs/atlas.en-us.soql_sosl.meta/soql_sosl/sforce_api_calls_soql_select.htm
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_TOKEN = re.compile(r"\s*(?:('(?:[^'\\]|\\.)*')|(<=|>=|!=|<>|=|<|>|\(|\)|,)|([^\s,()<>=!']+))")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class QueryError(Exception):
    """A query that the subset can't read: answered as MALFORMED_QUERY."""


@dataclass(frozen=True, slots=True)
class Condition:
    """`field operator operand`; the operand of IN and NOT IN is a list."""

    field: str
    operator: str
    operand: Any

    def holds(self, record: Mapping[str, Any]) -> bool:
        """Whether a record passes. Text compares without regard to case, as SOQL does."""
        value = _comparable(record.get(self.field))
        if self.operator in {"IN", "NOT IN"}:
            return (value in [_comparable(item) for item in self.operand]) is (self.operator == "IN")
        if self.operator == "LIKE":
            pattern = re.escape(str(self.operand)).replace("%", ".*").replace("_", ".")
            return re.fullmatch(pattern, str(record.get(self.field) or ""), re.IGNORECASE | re.DOTALL) is not None
        operand = _comparable(self.operand)
        if self.operator in {"=", "!="}:
            return (value == operand) is (self.operator == "=")
        if value is None or operand is None or isinstance(value, str) is not isinstance(operand, str):
            return False
        return _ORDERINGS[self.operator](value, operand)


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query. `fields` is empty for `SELECT COUNT()`."""

    fields: tuple[str, ...]
    object: str
    conditions: tuple[Condition, ...] = ()
    order_by: str | None = None
    descending: bool = False
    limit: int | None = None
    offset: int = 0

    def run(self, records: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The records that pass, in order, cut to offset and limit."""
        found = [record for record in records if all(condition.holds(record) for condition in self.conditions)]
        if self.order_by is not None:
            name = self.order_by
            found.sort(key=lambda record: _sortable(record.get(name)), reverse=self.descending)
        end = None if self.limit is None else self.offset + self.limit
        return found[self.offset : end]


_ORDERINGS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}


def _comparable(value: Any) -> Any:
    return value.casefold() if isinstance(value, str) else value


def _sortable(value: Any) -> tuple[bool, bool, Any]:
    return (value is not None, isinstance(value, str), _comparable(value) if value is not None else 0)


def parse(text: str) -> Query:
    """The query that `text` says. Raises `QueryError`."""
    return _Parser(_tokens(text)).query()


def _tokens(text: str) -> list[str]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise QueryError(f"unexpected token: '{text[at : at + 10]}'")
        tokens.append(match.group(0).strip())
        at = match.end()
    return tokens


class _Parser:
    def __init__(self, tokens: list[str]) -> None:
        self._tokens = tokens
        self._at = 0

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        if not token:
            raise QueryError("unexpected end of query")
        self._at += 1
        return token

    def _accept(self, *words: str) -> bool:
        found = [token.upper() for token in self._tokens[self._at : self._at + len(words)]]
        if found != list(words):
            return False
        self._at += len(words)
        return True

    def _expect(self, *words: str) -> None:
        if not self._accept(*words):
            raise QueryError(f"expecting '{' '.join(words)}', found '{self._peek()}'")

    def query(self) -> Query:
        self._expect("SELECT")
        fields: list[str] = []
        if not self._accept("COUNT", "(", ")"):
            fields.append(self._next())
            while self._accept(","):
                fields.append(self._next())
        self._expect("FROM")
        name = self._next()
        conditions = []
        if self._accept("WHERE"):
            conditions.append(self._condition())
            while self._accept("AND"):
                conditions.append(self._condition())
        order_by, descending = None, False
        if self._accept("ORDER", "BY"):
            order_by = self._next()
            descending = self._accept("DESC")
            if not descending:
                self._accept("ASC")
        limit = self._number() if self._accept("LIMIT") else None
        offset = self._number() if self._accept("OFFSET") else 0
        if self._peek():
            raise QueryError(f"unexpected token: '{self._peek()}'")
        return Query(tuple(fields), name, tuple(conditions), order_by, descending, limit, offset)

    def _number(self) -> int:
        token = self._next()
        if not token.isdigit():
            raise QueryError(f"expecting a number, found '{token}'")
        return int(token)

    def _condition(self) -> Condition:
        field = self._next()
        if self._accept("NOT", "IN"):
            return Condition(field, "NOT IN", self._list())
        operator = self._next().upper().replace("<>", "!=")
        if operator == "IN":
            return Condition(field, operator, self._list())
        if operator not in {"=", "!=", "LIKE", *_ORDERINGS}:
            raise QueryError(f"unexpected token: '{operator}'")
        return Condition(field, operator, _literal(self._next()))

    def _list(self) -> list[Any]:
        self._expect("(")
        items = [_literal(self._next())]
        while self._accept(","):
            items.append(_literal(self._next()))
        self._expect(")")
        return items


def _literal(token: str) -> Any:
    if token.startswith("'"):
        return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match.group(1), match.group(1)), token[1:-1])
    if token.lower() in {"true", "false"}:
        return token.lower() == "true"
    if token.lower() == "null":
        return None
    for kind in (int, float):
        try:
            return kind(token)
        except ValueError:
            continue
    return token  # a date or a date-time, written without quotes
