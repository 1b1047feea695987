"""Running the stand-ins of the entry-point group `trunkline.mocks`."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from contextlib import AsyncExitStack
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from trunkline.cli.output import Output
from trunkline.core.errors import ConfigurationError, UnavailableError, did_you_mean
from trunkline.core.mock import Mock

GROUP = "trunkline.mocks"
INTERRUPTED = 130


@cache
def available() -> dict[str, type[Mock]]:
    """The stand-ins that are installed with what they need, by name."""
    found = {}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        try:
            kind = point.load()
        except ModuleNotFoundError:
            continue  # its client library is an extra; asking for it by name says which
        if isinstance(kind, type) and issubclass(kind, Mock):
            found[point.name] = kind
    return found


def run_mocks(
    out: Output, names: list[str], *, port: int, state: Path | None, env_file: Path | None, options: list[str]
) -> int:
    """Serves until SIGINT or SIGTERM. The exit code: 130 after Ctrl-C, else 0."""
    given = _options(options, names)
    mocks = {name: _make(name, state, given.get(name, {})) for name in names}
    return asyncio.run(_serve(out, mocks, port, env_file))


async def _serve(out: Output, mocks: dict[str, Mock], port: int, env_file: Path | None) -> int:
    ended: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.put_nowait, number)
    async with AsyncExitStack() as stack:
        for index, (name, one) in enumerate(mocks.items()):
            try:
                await one.start("127.0.0.1", port + index if port else 0)
            except OSError as error:
                raise UnavailableError(
                    f"{name} can't listen on port {port + index}: {error.strerror}",
                    hint="choose another --port",
                    code="mock.address",
                ) from error
            stack.push_async_callback(one.stop)
        variables = {key: value for one in mocks.values() for key, value in one.environment.items()}
        if env_file is not None:
            _write(env_file, variables)
        if out.for_people:
            for name, one in mocks.items():
                out.note(f"{name}: {one.url}")
            for key, value in variables.items():
                out.line(f"export {key}={shlex.quote(value)}")
        else:
            out.data({name: {"url": one.url, "environment": one.environment} for name, one in mocks.items()})
        return INTERRUPTED if await ended.get() == signal.SIGINT else 0


def _write(file: Path, variables: dict[str, str]) -> None:
    """Readable by its owner only: the credentials are throw-away ones, and still nobody else's."""
    text = "".join(f"{key}={shlex.quote(value)}\n" for key, value in variables.items())
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as target:  # noqa: PTH123
            target.write(text)
    except OSError as error:
        raise ConfigurationError(
            f"it can't be written: {error.strerror}", where=str(file), code="mock.env_file"
        ) from error


def _make(name: str, state: Path | None, given: dict[str, Any]) -> Mock:
    kind = _find(name)
    fields = kind.settings_type.model_fields
    values: dict[str, Any] = {}
    if state is not None:
        state.mkdir(parents=True, exist_ok=True)
        kept = {"state": f"{name}.json", "root": name, "key_file": f"{name}-key.json"}
        values = {field: str((state / file).resolve()) for field, file in kept.items() if field in fields}
    try:
        return kind(kind.settings_type.model_validate({**values, **given}))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        hint = did_you_mean(field, fields) if first["type"] == "extra_forbidden" else None
        raise ConfigurationError(
            first["msg"], where=f"--set {name}.{field}", hint=hint, code="option.setting"
        ) from error


def _find(name: str) -> type[Mock]:
    found = available().get(name)
    if found is not None:
        return found
    every = {point.name: point for point in entry_points(group=GROUP)}
    if name not in every:
        raise ConfigurationError(f"no stand-in is called {name!r}", hint=did_you_mean(name, every), code="mock.unknown")
    try:
        every[name].load()
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the stand-in {name!r} needs the Python package {error.name!r}",
            hint=f"install trunkline[{name}]",
            code="plugin.missing_extra",
        ) from error
    raise ConfigurationError(f"{every[name].value} is no stand-in", code="plugin.invalid")


def _options(options: list[str], names: list[str]) -> dict[str, dict[str, Any]]:
    """`slack.per_second=2` as data; a value is YAML."""
    found: dict[str, dict[str, Any]] = {}
    for text in options:
        place, sign, value = text.partition("=")
        name, dot, field = place.partition(".")
        if not (sign and dot and field):
            raise ConfigurationError(
                f"{text!r} is no setting", where="--set", hint="write NAME.SETTING=VALUE", code="option.setting"
            )
        if name not in names:
            raise ConfigurationError(
                f"{name!r} is not started", where="--set", hint=did_you_mean(name, names), code="option.setting"
            )
        try:
            found.setdefault(name, {})[field] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ConfigurationError(
                f"{value!r} is no YAML value", where=f"--set {place}", code="option.setting"
            ) from error
    return found
