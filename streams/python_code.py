"""The code of a `python` step: found as a file or installed, read without running it, or imported.

Reading tells whether the module is there, parses, and has the function. What only running would tell is left to the worker.
"""

from __future__ import annotations

import ast
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from trunkline.core.contracts import StepContext
from trunkline.core.errors import ConfigurationError, did_you_mean

_PARAMETERS = "the function can't be called with a value, or with a value and an event"


def read_function(call: str, context: StepContext) -> None:
    """Checks what `module:function` names without running any of it. Raises `ConfigurationError` with the place in the manifest."""
    name, _, attribute = call.partition(":")
    where = f"{context.where}.call"
    path = _file_of(name, context, where)
    if path is None:  # compiled: only importing would tell more
        return
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError, OSError, RecursionError) as error:
        line = getattr(error, "lineno", None)
        message = getattr(error, "msg", None) or str(error)
        raise ConfigurationError(
            f"the module {name!r} can't be read: {path}" + (f":{line}" if line else "") + f": {message}",
            where=where,
            hint="mend the module",
            code="python.import",
        ) from error
    names = _Names()
    names.take(tree.body)
    found = names.known.get(attribute)
    if found is None:
        if names.open:
            return
        raise _no_function(name, attribute, names.functions, where)
    if isinstance(found, ast.AsyncFunctionDef) or (isinstance(found, ast.FunctionDef) and _yields(found)):
        raise _no_plain_function(call, where)
    if isinstance(found, ast.FunctionDef) and not found.decorator_list and not _fits(found.args):
        raise _wrong_parameters(where)


def import_function(call: str, context: StepContext) -> tuple[Callable[..., Any], bool]:
    """The function that `module:function` names, and whether it wants the event too. Runs the module.

    Raises `ConfigurationError` with the place in the manifest.
    """
    name, _, attribute = call.partition(":")
    where = f"{context.where}.call"
    try:
        module = _module(name, context.python_path)
    except Exception as error:
        missing = isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]
        if missing:
            raise _no_module(name, context, where) from error
        raise ConfigurationError(
            f"the module {name!r} can't be imported: {type(error).__name__}: {error}",
            where=where,
            hint="mend the module",
            code="python.import",
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [one for one, found in vars(module).items() if inspect.isfunction(found) and not one.startswith("_")]
        raise _no_function(name, attribute, known, where)
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise _no_plain_function(call, where)
    return function, _wants_event(function, where)


def _wants_event(function: Callable[..., Any], where: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # a built-in without a signature
        return False
    positional = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    needed = [one for one in positional if one.default is one.empty]
    keywords = [one.name for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is one.empty]
    variable = any(one.kind is one.VAR_POSITIONAL for one in parameters)
    if len(needed) > 2 or keywords or not (positional or variable):
        raise _wrong_parameters(where)
    return len(needed) == 2


# --- what may be wrong --------------------------------------------------------------------------------------------------


def _no_module(name: str, context: StepContext, where: str) -> ConfigurationError:
    beside = f" nor a file beside the manifest in {context.python_path}" if context.python_path else ""
    return ConfigurationError(
        f"there is no module {name!r}, neither installed{beside}",
        where=where,
        hint="write `module:function`",
        code="python.import",
    )


def _no_function(name: str, attribute: str, known: Sequence[str], where: str) -> ConfigurationError:
    return ConfigurationError(
        f"{name} has no function {attribute!r}", where=where, hint=did_you_mean(attribute, known), code="python.import"
    )


def _no_plain_function(call: str, where: str) -> ConfigurationError:
    return ConfigurationError(
        f"{call} is a coroutine or a generator",
        where=where,
        hint="a plain function that returns is expected",
        code="python.function",
    )


def _wrong_parameters(where: str) -> ConfigurationError:
    return ConfigurationError(_PARAMETERS, where=where, hint="give it one or two parameters", code="python.function")


# --- reading ------------------------------------------------------------------------------------------------------------


class _Names:
    """What a module defines at its top level. `open` says that it may define more than can be read (`import *`, `__getattr__`)."""

    def __init__(self) -> None:
        self.known: dict[str, ast.AST] = {}
        self.open = False

    @property
    def functions(self) -> list[str]:
        """The names of functions that others may call."""
        return [
            name
            for name, node in self.known.items()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not name.startswith("_")
        ]

    def take(self, body: Sequence[ast.stmt]) -> None:
        """Notes the names that statements define, those in branches too."""
        for statement in body:
            self._take_one(statement)
            for part in ("body", "orelse", "finalbody"):
                inner = getattr(statement, part, None)
                if inner and not isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    self.take(inner)
            for handler in getattr(statement, "handlers", ()):
                self.take(handler.body)

    def _take_one(self, statement: ast.stmt) -> None:
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            self.known[statement.name] = statement
            self.open = self.open or statement.name == "__getattr__"
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            for alias in statement.names:
                self.open = self.open or alias.name == "*"
                self.known[alias.asname or alias.name.partition(".")[0]] = statement
        elif isinstance(statement, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for node in (node for target in targets for node in ast.walk(target)):
                if isinstance(node, ast.Name):
                    self.known[node.id] = statement


def _yields(function: ast.FunctionDef) -> bool:
    """Whether the function itself, and not one within it, is a generator."""
    waiting: list[ast.AST] = list(function.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Yield, ast.YieldFrom)):
            return True
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)):
            waiting += ast.iter_child_nodes(node)
    return False


def _fits(parameters: ast.arguments) -> bool:
    positional = [*parameters.posonlyargs, *parameters.args]
    needed = len(positional) - len(parameters.defaults)
    keywords = any(default is None for default in parameters.kw_defaults)
    return needed <= 2 and not keywords and bool(positional or parameters.vararg)


def _file_of(name: str, context: StepContext, where: str) -> Path | None:
    """The file of a module; None where it has none that can be read. No module of the way is imported."""
    beside = _beside(name, context.python_path)
    if beside is not None:
        return beside
    top, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        spec = None
    if spec is None:
        raise _no_module(name, context, where)
    for part in rest:
        found = importlib.machinery.PathFinder.find_spec(part, list(spec.submodule_search_locations or ()))
        if found is None:
            raise _no_module(name, context, where)
        spec = found
    readable = spec.origin is not None and spec.origin.endswith(".py")
    return Path(str(spec.origin)) if readable else None


def _beside(name: str, folder: Path | None) -> Path | None:
    """The file of a module in the manifest's folder."""
    if folder is None:
        return None
    base = folder.absolute().joinpath(*name.split("."))
    candidates = (base.with_name(f"{base.name}.py"), base / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


# --- running ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a module's file is, and the name that it gets among the imported ones."""

    path: Path
    folder: Path
    unique: str


def _module(name: str, folder: Path | None) -> ModuleType:
    """The module: a file of `folder` before an installed one. A file is read anew each time, so that a change of it takes effect."""
    path = _beside(name, folder)
    if path is None or folder is None:
        return importlib.import_module(name)
    # Manifests of two folders may each have a module of that name, so it gets a name of its own.
    unique = f"_trunkline_{zlib.crc32(str(folder.absolute()).encode()):08x}_{name.replace('.', '_')}"
    return _from_file(_Place(path, folder.absolute(), unique))


def _from_file(place: _Place) -> ModuleType:
    path, unique = place.path, place.unique
    submodules = [str(path.parent)] if path.name == "__init__.py" else None
    spec = importlib.util.spec_from_file_location(unique, path, submodule_search_locations=submodules)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(unique)
    sys.modules[unique] = module
    try:
        with _importable(place.folder):
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
