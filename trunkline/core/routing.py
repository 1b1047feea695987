"""Where a record goes: the targets of a source or a stream, with their expressions compiled."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.expressions import BOOL, Expression, compile_expression
from trunkline.core.manifests.models import Target
from trunkline.core.plain import WHOLE_EVENT, Reads, reads_of

Evaluate = Callable[[Any, Any], Any]
MAX_KEY = 64 * 1024


@dataclass(frozen=True, slots=True)
class Route:
    """One target, compiled. `topic` is whole, or for a family its part before the `*`, which `name` completes.

    Expressions are evaluated on a value and its context: the event, or None where `reads` says that they need none.
    """

    topic: str
    when: Evaluate | None
    otherwise: bool
    key: Evaluate | None
    name: Evaluate | None
    reads: Reads = WHOLE_EVENT

    def topic_of(self, value: Any, context: Event | None) -> str:
        """The topic of this value. Raises `RejectedError` where the name that a family needs can't be one."""
        if self.name is None:
            return self.topic
        part = text_of(self.name(value, context), "name")
        if (
            not part
            or len(part) > 100
            or not all((char.isalnum() and char.isascii()) or char in "._-" for char in part)
        ):
            raise RejectedError(f"{part[:60]!r} can't be part of a topic's name", code="route.bad_name")
        return self.topic + part

    def key_of(self, value: Any, context: Event | None, own: bytes | None) -> bytes | None:
        """The key of this value's record: the target's, else its own, which it came with."""
        if self.key is None:
            return own
        found = self.key(value, context)
        return None if found is None else text_of(found, "key").encode()


def text_of(value: Any, what: str) -> str:
    """A key or a name as text: strings as they are, whole numbers and truth values in CEL's spelling."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    raise RejectedError(f"a {what} must be text or a whole number, found {type(value).__name__}", code="route.bad_key")


def compile_routes(targets: Sequence[Target], schema: Any | None, where: str) -> list[Route]:
    """The targets' expressions compiled against the schema of what reaches them.

    Raises `ConfigurationError` with the place of the target: a bad expression, or a family without `name` (and the reverse).
    """
    routes = []
    for index, target in enumerate(targets):
        place = f"{where}.to[{index}]"
        family = target.topic.endswith(".*")
        if family and target.name is None:
            raise ConfigurationError(
                f"{target.topic} is a family of topics",
                where=place,
                hint="say with `name` what stands for the *",
                code="route.family",
            )
        if target.name is not None and not family:
            raise ConfigurationError(
                "`name` needs a topic family",
                where=place,
                hint=f"write {target.topic}.* as the topic",
                code="route.family",
            )
        if target.otherwise and target.when is not None:
            raise ConfigurationError("`otherwise` and `when` exclude each other", where=place, code="route.otherwise")
        when = _compiled(target.when, schema, f"{place}.when", boolean=True)
        key = _compiled(target.key, schema, f"{place}.key")
        name = _compiled(target.name, schema, f"{place}.name")
        routes.append(
            Route(
                topic=target.topic[:-1] if family else target.topic,
                when=when and when.fn,
                otherwise=target.otherwise,
                key=key and key.fn,
                name=name and name.fn,
                reads=reads_of([one for one in (when, key, name) if one is not None]),
            )
        )
    return routes


def choose(routes: Sequence[Route], value: Any, context: Event | None) -> list[Route]:
    """The routes that take this value, in the order of the manifest; an empty list where none does."""
    taken: list[Route] = []
    matched = False
    for route in routes:
        if route.when is not None:
            if route.when(value, context) is True:
                taken.append(route)
                matched = True
        elif not route.otherwise:
            taken.append(route)
    if not matched:
        taken += [route for route in routes if route.otherwise]
    return taken


def _compiled(text: str | None, schema: Any | None, where: str, *, boolean: bool = False) -> Expression | None:
    if text is None:
        return None
    return compile_expression(text, schema=schema, expect=BOOL if boolean else None, where=where)
