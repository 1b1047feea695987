"""The Jinja2 environment of templates: its immutable sandbox, minus what can grow without bound.

Jinja's own sandbox keeps code from attributes and changes of data; it does not keep it from `'x' * 10**9`, from nested loops
over `range(100000)`, or from `center(10**9)`. Here loops are counted, concatenation and arithmetic are bounded, and only
the filters and methods below can be called.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextvars import ContextVar
from datetime import date, datetime, time
from decimal import Decimal
from functools import wraps
from typing import Any
from uuid import UUID

from jinja2 import StrictUndefined, TemplateSyntaxError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from trunkline.core.jsonable import to_json_bytes

MAX_ROUNDS = 100_000
"""Loop rounds of one rendering, all loops together."""
PARTS_OF_A_ROUND = 20
"""Texts, names, operations and the like for which a round counts once more: a body of thousands takes as long as thousands of rounds."""
MAX_TEXT = 1024 * 1024
"""Characters or items that a single operation may give."""
MAX_WORK = 5_000_000
"""Characters that the operations of one rendering may read and make, where they are charged; an item counts for five."""
MAX_SOUGHT = 100
"""Characters that can be stripped, or looked for from a text's end: the time of that is the product of both lengths."""
MAX_TIME_FORMAT = 1_000
MAX_PATH = 200
"""Characters of a name that is looked up beside what a map has, and of a path that filters go for each item (`attribute='a.b'`)."""
PARTS_OF_A_STEP = 4
"""Parts of such a path for which an item counts as a round of a loop once more, where it has more than so many."""
_ITEM = 5
"""What an item costs, in characters."""


class LimitError(Exception):
    """A template went beyond a limit."""


class Limits:
    """What one rendering has used so far."""

    __slots__ = ("rounds", "work")

    def __init__(self) -> None:
        self.rounds = 0
        self.work = MAX_WORK

    def spend(self, *values: Any) -> None:
        """Charges what values hold, parts that they hold twice counted twice. Raises `LimitError` when the work is used up."""
        waiting = list(values)
        while waiting:
            part = waiting.pop()
            if isinstance(part, (str, bytes)):
                self.work -= len(part)
            elif isinstance(part, (list, tuple)):
                waiting.extend(part)
            elif isinstance(part, Mapping):
                waiting.extend(part.values())
            elif isinstance(part, Sized):  # a range, or the keys of a map
                self.work -= len(part) * _ITEM
            self.work -= _ITEM
            if self.work < len(waiting) * _ITEM:
                raise LimitError(f"it reads and makes more than {MAX_WORK} characters and items")


limits: ContextVar[Limits] = ContextVar("trunkline_template_limits")


class Verbatim(str):
    """Text that no escape is applied to."""

    __slots__ = ()


_FILTERS = (
    "abs capitalize count d default dictsort first float groupby int items last length list lower map max min reject "
    "rejectattr reverse select selectattr sort striptags sum title trim truncate unique upper urlencode wordcount"
)


def _words(text: str) -> list[str]:
    return text.split()


_PATHS = {"groupby": 1, "max": 2, "min": 2, "rejectattr": 1, "selectattr": 1, "sort": 3, "sum": 1, "unique": 2}
"""Filters that look for a path in each item, and where they take it as an argument without its name, which is `attribute`."""

METHODS: dict[type, frozenset[str]] = {
    str: frozenset(
        _words(
            "capitalize casefold count endswith find isalnum isalpha isdigit islower isnumeric isspace isupper lower lstrip "
            "partition removeprefix removesuffix replace rfind rpartition rsplit rstrip split splitlines startswith strip title "
            "upper"
        )
    ),
    dict: frozenset(("get", "items", "keys", "values")),
    list: frozenset(("count", "index")),
    tuple: frozenset(("count", "index")),
    bytes: frozenset(("hex",)),
    float: frozenset(("is_integer",)),
    Decimal: frozenset(("is_finite", "is_signed", "normalize", "to_integral_value")),
    datetime: frozenset(_words("date isoformat isoweekday strftime time timestamp weekday")),
    date: frozenset(_words("isoformat isoweekday strftime weekday")),
    time: frozenset(("isoformat", "strftime")),
}
_NODES_REFUSED = (
    nodes.Macro,
    nodes.CallBlock,
    nodes.FilterBlock,
    nodes.AssignBlock,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
    nodes.Block,
)
_GROWING = (nodes.Concat, nodes.List, nodes.Tuple, nodes.Dict)
_SEEKING = frozenset(_words("lstrip rfind rpartition rsplit rstrip strip"))
_WIDE = re.compile(r"\d{4,}|\*")


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment. `escape` is applied to the value of each expression that is not `verbatim`."""

    intercepted_binops = frozenset(("+", "-", "*", "**", "%", "/", "//"))

    def __init__(self, escape: Callable[[str], str] | None = None) -> None:
        super().__init__(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
        known = self.filters
        self.filters = {name: known[name] for name in _FILTERS.split()}
        self.filters |= {
            "tojson": _tojson,
            "verbatim": lambda value: Verbatim(as_text(value)),
            "string": as_text,
            "join": _join,
            "replace": lambda value, old, new: _replace(as_text(value), str(old), str(new)),
            "round": _round,
            "sum": _summing(known["sum"]),
            "int": lambda value, default=0, base=10: _bounded(known["int"](value, default, base)),
            "trim": lambda value, chars=None: as_text(value).strip(None if chars is None else _sought(str(chars))),
            "_counted": counted,
            "_bounded": _bounded,
        }
        for name in ("map", *_PATHS):
            self.filters[name] = _going(self.filters[name], _PATHS.get(name))
        self.globals = {"range": self.globals["range"]}
        self.finalize = as_text if escape is None else _escaping(escape)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """An item. Jinja looks for a method of that name else, and makes a message of it: of a long one for nothing."""
        if isinstance(argument, str) and len(argument) > MAX_PATH:
            try:
                return obj[argument]
            except (TypeError, LookupError):
                return self.undefined(obj=obj, name=argument)
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A field of a map before a method of its type, so that a field called `items` can be read."""
        if isinstance(obj, Mapping) and attribute in obj:
            return obj[attribute]
        return super().getattr(obj, attribute)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """Nothing: `str.format` is not among the methods, because a width in its text can be a billion."""
        return None

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Data attributes of dates and times, and the methods that `METHODS` lists."""
        if not super().is_safe_attribute(obj, attr, value):
            return False
        if not callable(value):
            return isinstance(obj, (date, time, Mapping)) or type(obj).__module__ == "jinja2.runtime"
        return attr in _methods(type(obj)) or type(obj).__module__ == "jinja2.runtime"

    def call(self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        """Calls what may be called, after a look at what the result may grow to."""
        owner, name = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str) and name == "replace":
            return _replace(owner, *(str(argument) for argument in args[:2]))
        if name in _SEEKING and isinstance(owner, str):
            for argument in args[:1]:
                _sought(str(argument))
        if name == "strftime" and any(_WIDE.search(str(argument)[: MAX_TIME_FORMAT + 1]) for argument in args):
            raise LimitError("a time format has no widths beyond 999")
        if name == "strftime" and any(len(str(argument)) > MAX_TIME_FORMAT for argument in args):
            raise LimitError(f"a time format has at most {MAX_TIME_FORMAT} characters")
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Arithmetic within bounds."""
        if operator == "%" and isinstance(left, (str, bytes)):
            raise SecurityError("text formatting with % is not allowed: write the parts beside each other")
        if operator == "*":
            _check_product(left, right)
        if operator == "**" and not (_small(left, 10**6) and _small(right, 64)):
            raise LimitError("a power has a base below a million and an exponent below 65")
        return _bounded(super().call_binop(context, operator, left, right))


def as_text(value: Any) -> str:
    """A value as templates write it: as JSON does, without the quotes around text; null as nothing."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float, Decimal)):
        return str(value)
    if isinstance(value, Undefined):
        return str(value)
    text = to_json_bytes(_listed(value)).decode()
    return text[1:-1] if isinstance(value, (datetime, date, time, UUID, bytes)) else text


def _listed(value: Any) -> Any:
    if isinstance(value, (dict, list, tuple, datetime, date, time, UUID, bytes)):
        return value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable):
        return list(value)
    raise SecurityError(f"a {type(value).__name__} can't be written")


def _escaping(escape: Callable[[str], str]) -> Callable[[Any], str]:
    def finalize(value: Any) -> str:
        return value if isinstance(value, Verbatim) else escape(as_text(value))

    return finalize


def guarded(tree: nodes.Template) -> nodes.Template:
    """The parsed template with loops counted and concatenations bounded. Raises for blocks that can repeat themselves."""
    for refused in tree.find_all(_NODES_REFUSED):
        raise TemplateSyntaxError(f"{type(refused).__name__.lower()} is not allowed in a template", refused.lineno)
    for loop in list(tree.find_all(nodes.For)):
        if loop.recursive:
            raise TemplateSyntaxError("a recursive loop is not allowed in a template", loop.lineno)
        loop.iter = _filtered(loop.iter, "_counted", 1 + _parts(loop) // PARTS_OF_A_ROUND)
    for holder in [tree, *tree.find_all(nodes.Node)]:
        for field, child in holder.iter_fields():
            if isinstance(child, _GROWING):
                setattr(holder, field, _bound(child))
            elif isinstance(child, list):
                child[:] = [_bound(item) for item in child]
    return tree


def _bound(node: Any) -> Any:
    # What is assigned to (`for a, b in`) is a tuple too, and no expression.
    if isinstance(node, _GROWING) and getattr(node, "ctx", "load") == "load":
        return _filtered(node, "_bounded")
    return node


def _parts(loop: nodes.For) -> int:
    """How many nodes a round of a loop goes through, without those of the loops in it, which count for themselves."""
    found = 0
    waiting: list[nodes.Node] = list(loop.body)
    while waiting:
        found += 1
        waiting.extend(child for child in waiting.pop().iter_child_nodes() if not isinstance(child, nodes.For))
    return found


def _filtered(node: Any, name: str, *arguments: int) -> nodes.Filter:
    return nodes.Filter(node, name, [nodes.Const(one) for one in arguments], [], None, None, lineno=node.lineno)


def _methods(kind: type) -> frozenset[str]:
    found = METHODS.get(kind)
    if found is not None:
        return found
    return next((names for base, names in METHODS.items() if issubclass(kind, base)), frozenset())


def counted(values: Iterable[Any], weight: int = 1) -> Iterator[Any]:
    """The values, each counted as so many rounds of a loop. Raises `LimitError` when there are too many."""
    used = limits.get()
    for value in values:
        used.rounds += weight
        if used.rounds > MAX_ROUNDS:
            raise LimitError(
                f"its loops go round more than {MAX_ROUNDS} times; a round counts once more for every {PARTS_OF_A_ROUND} parts of it"
            )
        yield value


def _bounded(value: Any) -> Any:
    if isinstance(value, (str, bytes)) and len(value) > MAX_TEXT:
        raise LimitError(f"an expression gives more than {MAX_TEXT} characters")
    if isinstance(value, (list, tuple, dict)):
        _weigh(value)
    if isinstance(value, int) and value.bit_length() > 4096:
        raise LimitError("an expression gives a number of more than 4,096 bits")
    return value


def _weigh(value: Any) -> None:
    """Walks a list or map, parts that it holds twice counted twice: each part is a round, and its text is bounded."""
    used = limits.get()
    characters = 0
    waiting = [value]
    while waiting:
        part = waiting.pop()
        used.rounds += 1
        if isinstance(part, str):
            characters += len(part)
        elif isinstance(part, Mapping):
            waiting.extend(part.values())
        elif isinstance(part, (list, tuple)):
            waiting.extend(part)
        if used.rounds > MAX_ROUNDS or characters > MAX_TEXT:
            raise LimitError(f"its lists hold more than {MAX_ROUNDS} items or {MAX_TEXT} characters")


def _check_product(left: Any, right: Any) -> None:
    for sequence, times in ((left, right), (right, left)):
        if (
            isinstance(sequence, (str, bytes, list, tuple))
            and isinstance(times, int)
            and len(sequence) * times > MAX_TEXT
        ):
            raise LimitError(f"an expression gives more than {MAX_TEXT} characters or items")


def _small(value: Any, bound: int) -> bool:
    return isinstance(value, (int, float)) and abs(value) <= bound


def _replace(text: str, old: str = "", new: str = "") -> str:
    if len(text) + text.count(old) * len(new) > MAX_TEXT:
        raise LimitError(f"a replacement gives more than {MAX_TEXT} characters")
    return text.replace(old, new)


def _sought(text: str) -> str:
    if len(text) > MAX_SOUGHT:
        raise LimitError(f"a text of more than {MAX_SOUGHT} characters can't be stripped, nor looked for from the end")
    return text


def _going(run: Callable[..., Any], place: int | None) -> Callable[..., Any]:
    """A filter that goes a path in each item: its length is bounded, and a long one counts as rounds of a loop for each item."""
    before = int(hasattr(run, "jinja_pass_arg"))  # Jinja's environment, which it is given first

    @wraps(run)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        at = len(args) if place is None else before + place
        path = kwargs.get("attribute", args[at] if at < len(args) else None)
        if isinstance(path, str):
            if len(path) > MAX_PATH:
                raise LimitError(f"a path of fields has at most {MAX_PATH} characters")
            parts = 1 + path.count(".") + path.count(",")
            if parts > PARTS_OF_A_STEP:
                weight = -(-parts // PARTS_OF_A_STEP)
                args = (*args[:before], counted(args[before], weight), *args[before + 1 :])
        return run(*args, **kwargs)

    return bounded


def _summing(known: Callable[..., Any]) -> Callable[..., Any]:
    """The filter `sum`, for numbers: of lists each sum would be copied for the next."""

    @wraps(known)
    def run(environment: Any, values: Any, attribute: Any = None, start: Any = 0) -> Any:
        if not isinstance(start, (int, float, Decimal)):
            raise LimitError("`sum` adds numbers; use `join` for texts")
        return known(environment, values, attribute, start)

    return run


def _join(values: Iterable[Any], separator: str = "", attribute: str | None = None) -> str:
    items = [as_text(value if attribute is None else value[attribute]) for value in values]
    if sum(map(len, items)) + len(items) * len(separator) > MAX_TEXT:
        raise LimitError(f"a join gives more than {MAX_TEXT} characters")
    return separator.join(items)


def _round(value: Any, digits: int = 0) -> Any:
    if not 0 <= digits <= 15:
        raise LimitError("a number is rounded to 0 to 15 digits")
    return round(value, digits) if digits else round(value)


def _tojson(value: Any) -> Verbatim:
    # No escape is applied to JSON, so the characters that are markup elsewhere (HTML, Slack's mentions) are spelled as JSON allows.
    text = to_json_bytes(list(value) if isinstance(value, Iterator) else value).decode()
    return Verbatim(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
