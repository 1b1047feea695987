"""The `python` step: a function of one's own.

The function gets the value as a dict (and, where it has a second parameter, the event) and returns what goes on: a dict, a list of
dicts (one event each, with ids as `split` gives them), or None to filter. It may change and return the dict it got. It runs
on the stream's own thread for every record, so it must be quick, do no input or output, and give the same result for the same
event: a replay calls it again. What it raises rejects the record. It is code: it may do whatever the worker may.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import inspect
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

from pydantic import Field

from streams.assignment import settled
from streams.avro_file import schema_of
from streams.parts import parts_of
from streams.record_schema import RecordSchema
from trunkline.core.contracts import Step, StepContext
from trunkline.core.errors import ConfigurationError, RejectedError, did_you_mean
from trunkline.core.event import Event
from trunkline.core.settings import Settings, setting


class PythonSettings(Settings):
    """Which function is called. `python: module:function` is short for `python: {call: module:function}`."""

    call: str = setting(
        description="The function as `module:function`. The module is a file beside the manifest, or installed.",
        examples=["pricing:with_discount"],
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
    )
    schema_: str | dict[str, Any] | None = Field(
        None,
        alias="schema",
        description="The Avro schema of what the function returns: an .avsc file (a relative path starts at the manifest's folder), or "
        "the schema itself. Without it, later steps know nothing of the fields.",
        examples=["schemas/priced_order.avsc"],
    )


class PythonStep(Step):
    """Calls a function for each event."""

    settings_type = PythonSettings
    summary: ClassVar[str] = "Calls a Python function of your own for each event."
    shorthand: ClassVar[str | None] = "call"

    settings: PythonSettings
    _call: Callable[[Event], Any]

    def prepare(self, context: StepContext) -> Any | None:
        function = _function(self.settings.call, context)
        self._call = (
            (lambda event: function(event.value, event))
            if _wants_event(function, context)
            else (lambda event: function(event.value))
        )
        declared = self.settings.schema_
        if declared is None:
            return context.target
        return settled(RecordSchema(schema_of(declared, context, "schema"), f"{context.where}.schema"), context)

    def process(self, event: Event) -> Event | list[Event] | None:
        result = self._call(event)
        if result is None:
            return None
        if isinstance(result, dict):
            event.value = result
            event.changed = True
            return event
        if isinstance(result, list) and all(isinstance(one, dict) for one in result):
            return parts_of(event, _each_its_own(result)) if result else None
        found = type(result).__name__
        raise RejectedError(
            f"{self.settings.call} returned {found}",
            hint="a dict, a list of dicts or None is expected",
            code="python.result",
        )


def _each_its_own(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The values, none of them twice the same object: later steps change each in place."""
    return values if len({id(value) for value in values}) == len(values) else [copy.deepcopy(one) for one in values]


def _function(call: str, context: StepContext) -> Callable[..., Any]:
    name, _, attribute = call.partition(":")
    where = f"{context.where}.call"
    try:
        module = _module(name, context.python_path)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        beside = f" nor a file beside the manifest in {context.python_path}" if context.python_path else ""
        raise ConfigurationError(
            f"there is no module {name!r}, neither installed{beside}"
            if missing
            else f"the module {name!r} can't be imported: {type(error).__name__}: {error}",
            where=where,
            hint="write `module:function`" if missing else "mend the module",
            code="python.import",
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [one for one, found in vars(module).items() if inspect.isfunction(found) and not one.startswith("_")]
        raise ConfigurationError(
            f"{name} has no function {attribute!r}",
            where=where,
            hint=did_you_mean(attribute, known),
            code="python.import",
        )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(
            f"{call} is a coroutine or a generator",
            where=where,
            hint="a plain function that returns is expected",
            code="python.function",
        )
    found: Callable[..., Any] = function
    return found


def _wants_event(function: Callable[..., Any], context: StepContext) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a built-in without a signature
        return False
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one for one in positional if one.default is one.empty]
    keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    variable = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if len(needed) > 2 or keywords or not (positional or variable):
        raise ConfigurationError(
            "the function can't be called with a value, or with a value and an event",
            where=f"{context.where}.call",
            hint="give it one or two parameters",
            code="python.function",
        )
    return len(needed) == 2


def _module(name: str, folder: Path | None) -> ModuleType:
    """The module: a file of `folder` before an installed one. A file is read anew each time, so that a change of it takes effect."""
    if folder is not None:
        base = folder.absolute().joinpath(*name.split("."))
        for path in (base.with_name(f"{base.name}.py"), base / "__init__.py"):
            if path.is_file():
                return _from_file(name, path, folder.absolute())
    return importlib.import_module(name)


def _from_file(name: str, path: Path, folder: Path) -> ModuleType:
    # Manifests of two folders may each have a module of that name, so it gets a name of its own.
    unique = f"_trunkline_{zlib.crc32(str(folder).encode()):08x}_{name.replace('.', '_')}"
    submodules = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(unique, path, submodule_search_locations=submodules)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(unique)
    sys.modules[unique] = module
    try:
        with _importable(folder):
            source = path.read_bytes()
            exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 (running it is the step's purpose)
    except BaseException:
        if before is None:
            del sys.modules[unique]
        else:
            sys.modules[unique] = before
        raise
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """What the module imports may stand beside it."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
