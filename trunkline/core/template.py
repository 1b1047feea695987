"""Text templates: Jinja2 in its sandbox, with limits, for texts, URLs, headers and request bodies.

A template sees `event` (the value), `meta` (the envelope), `key` and `headers`. A name that does not exist is an error when
the template is compiled; a field that an event lacks is an error of that event. Values are written as JSON writes them,
without the quotes: null as nothing, true and false, ISO 8601 times, maps and lists as JSON.

The people who write templates are trusted with their pipeline, not with the worker; the data is not trusted at all. So, beyond
Jinja's sandbox: an allow-list of filters and methods, and limits on output, loop rounds, what arithmetic may grow, and the work
of all operations together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any

from jinja2 import TemplateError, meta, nodes

from trunkline.core.errors import ConfigurationError, RejectedError, did_you_mean
from trunkline.core.event import Event
from trunkline.core.sandbox import LimitError, Limits, Sandbox, guarded, limits
from trunkline.core.sandbox_meter import MeteredSandbox, metered, needs_meter

MAX_TEMPLATE = 64 * 1024
MAX_OUTPUT = 1024 * 1024
"""Characters that one rendering may give."""

EVENT_NAMES = ("event", "meta", "key", "headers")
_NO_SUCH = re.compile(r"No (filter|test) named '([^']*)'")
_GLOBALS = frozenset({"range"})
_READERS: dict[str, Callable[[Event], Any]] = {
    "event": lambda event: event.value,
    "meta": lambda event: event.meta,
    "key": lambda event: event.key,
    "headers": lambda event: event.headers_map,
}


class Template:
    """A compiled template. `constant` is its text when it has no expression, else None. `names` are those that it uses."""

    __slots__ = ("_compiled", "constant", "names", "text", "where")

    def __init__(self, text: str, where: str, compiled: Any, names: frozenset[str], constant: str | None) -> None:
        self.text = text
        self.where = where
        self.names = names
        self.constant = constant
        self._compiled = compiled

    def render(self, event: Event) -> str:
        """The text for `event`. Raises `RejectedError` (`template.failed`) that says what the event lacks."""
        if self.constant is not None:
            return self.constant
        return self._rendered({name: _READERS[name](event) for name in self.names})

    def render_with(self, names: Mapping[str, Any]) -> str:
        """The text for values of the names that the template was compiled for. Raises as `render` does."""
        if self.constant is not None:
            return self.constant
        return self._rendered({name: names[name] for name in self.names})

    def _rendered(self, context: dict[str, Any]) -> str:
        parts: list[str] = []
        size = 0
        token = limits.set(Limits())
        try:
            for part in self._compiled.generate(context):
                size += len(part)
                if size > MAX_OUTPUT:
                    raise LimitError(f"it gives more than {MAX_OUTPUT} characters")
                parts.append(part)
        except RecursionError:
            raise RejectedError("nested too deeply", where=self.where, code="template.failed") from None
        except RejectedError:
            raise
        except Exception as error:  # noqa: BLE001
            # Whatever an expression may raise on data it was not written for is this record's error.
            raise RejectedError(
                f"the template can't be rendered: {_told(error)}", where=self.where, code="template.failed"
            ) from None
        finally:
            limits.reset(token)
        return "".join(parts)


def compile_template(
    text: str,
    where: str,
    *,
    names: tuple[str, ...] = EVENT_NAMES,
    escape: Callable[[str], str] | None = None,
) -> Template:
    """`text` compiled. `where` points at it in its manifest, `names` are the names it may use.

    `escape` is applied to the value of each expression, and not to the text around: with `urllib.parse.quote` no value can
    break out of its place in a URL. The filter `verbatim` lets a value through unchanged.

    Raises `ConfigurationError` (`template.invalid`) with the line and what is wrong.
    """
    try:
        compiled, used, constant = _compiled(text, names, escape)
    except ConfigurationError as error:
        error.where = where
        raise
    return Template(text, where, compiled, used, constant)


@lru_cache(
    maxsize=2048
)  # the same text is compiled to be checked, to be built, and again after each change of another manifest
def _compiled(
    text: str, names: tuple[str, ...], escape: Callable[[str], str] | None
) -> tuple[Any, frozenset[str], str | None]:
    """The compiled template, the names that it uses, and its text where it is constant."""
    if len(text) > MAX_TEMPLATE:
        raise ConfigurationError(f"a template has at most {MAX_TEMPLATE} characters", code="template.invalid")
    environment = _environment(escape, False)
    try:
        parsed = environment.parse(text)
        constant = _constant(parsed)
        charges = needs_meter(parsed)
        if charges:
            environment = _environment(escape, True)
            tree = metered(guarded(environment.parse(text)))
        else:
            tree = guarded(parsed)
        used = frozenset(meta.find_undeclared_variables(tree)) - _GLOBALS
        code = environment.compile(tree)
    except TemplateError as error:
        line, message = getattr(error, "lineno", None), str(error.message)
        unknown_name = _NO_SUCH.match(message)
        hint = None
        if unknown_name is not None:
            known = environment.filters if unknown_name.group(1) == "filter" else environment.tests
            hint = did_you_mean(unknown_name.group(2), [name for name in known if not name.startswith("_")])
        raise ConfigurationError(
            f"line {line}: {message}" if line else message, hint=hint, code="template.invalid"
        ) from None
    except (RecursionError, OverflowError, SyntaxError, ValueError, LimitError) as error:
        raise ConfigurationError(f"the template can't be compiled: {_told(error)}", code="template.invalid") from None
    unknown = sorted(used - set(names))
    if unknown:
        raise ConfigurationError(
            f"{unknown[0]!r} is not known here",
            hint=did_you_mean(unknown[0], names),
            code="template.invalid",
        )
    compiled = environment.template_class.from_code(environment, code, environment.make_globals(None), None)
    return compiled, used, constant


def parsed(text: str) -> nodes.Template:
    """The syntax tree of a valid template."""
    return _environment(None, False).parse(text)


def _constant(tree: nodes.Template) -> str | None:
    parts: list[str] = []
    for node in tree.body:
        if not isinstance(node, nodes.Output):
            return None
        for child in node.nodes:
            if not isinstance(child, nodes.TemplateData):
                return None
            parts.append(child.data)
    return "".join(parts)


@cache
def _environment(escape: Callable[[str], str] | None, charges: bool) -> Sandbox:
    return MeteredSandbox(escape) if charges else Sandbox(escape)


def _told(error: BaseException) -> str:
    message = str(getattr(error, "message", None) or error) or type(error).__name__
    return message[:300]
