"""Two independent implementations of CEL that ours is compared with, and the tagged form in which values are compared.

`["int", "1"]` and `["uint", "1"]` and `["double", "1"]` are different answers, though Python calls them equal.
"""

from __future__ import annotations

import base64
import json
import math
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import celpy
import celpy.celtypes as ct

from trunkline.core.expressions.values import TypeValue, Uint, from_key

CELGO = Path(__file__).parent / "celgo"
ERROR = ["error"]


def tag(value: Any) -> list[Any]:
    """A value of ours with its CEL type."""
    match value:
        case None:
            return ["null", None]
        case bool():
            return ["bool", value]
        case Uint():
            return ["uint", str(int(value))]
        case int():
            return ["int", str(value)]
        case float():
            return ["double", _double(value)]
        case str():
            return ["string", value]
        case bytes():
            return ["bytes", base64.b64encode(value).decode()]
        case datetime():
            return ["timestamp", _moment(value)]
        case timedelta():
            return ["duration", str(value // timedelta(microseconds=1))]
        case TypeValue():
            return ["type", value.name]
        case list():
            return ["list", [tag(item) for item in value]]
        case dict():
            return ["map", sorted(([tag(from_key(key)), tag(item)] for key, item in value.items()), key=str)]
    raise AssertionError(type(value))


def _double(value: float) -> str:
    return "NaN" if math.isnan(value) else repr(value)


def _moment(value: datetime) -> str:
    return value.astimezone(UTC).isoformat()


class CelGo:
    """cel-go, as a process that answers line by line."""

    def __init__(self, folder: Path) -> None:
        binary = folder / "celgo"
        subprocess.run(["go", "build", "-o", str(binary), "."], cwd=CELGO, check=True, capture_output=True, timeout=600)
        self._process = subprocess.Popen([str(binary)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    @staticmethod
    def absent() -> str | None:
        """Why it can't run here, or None."""
        return None if shutil.which("go") else "no Go toolchain here"

    def ask(self, text: str, variables: Mapping[str, Any]) -> tuple[list[Any], bool]:
        """What an expression gives (`ERROR` for an error), and whether cel-go's type checker accepts it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"expr": text, "vars": {name: tag(value) for name, value in variables.items()}}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if answer.get("error"):
            return ERROR, bool(answer["checked"])
        return _from_go(answer["value"]), bool(answer["checked"])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


def _from_go(found: list[Any]) -> list[Any]:
    kind, value = found
    if kind == "double":
        return [kind, _double(float(value))]
    if kind == "duration":
        return [kind, str(int(value) // 1000)]
    if kind == "timestamp":
        return [kind, _moment(datetime.fromisoformat(value))]
    if kind == "list":
        return [kind, [_from_go(item) for item in value]]
    if kind == "map":
        return [kind, sorted(([_from_go(key), _from_go(item)] for key, item in value), key=str)]
    return found


def ask_celpy(text: str, variables: Mapping[str, Any]) -> list[Any]:
    """What cel-python gives, `ERROR` for an error."""
    environment = celpy.Environment()
    try:
        program = environment.program(environment.compile(text))
        return _from_celpy(program.evaluate({name: _to_celpy(value) for name, value in variables.items()}))
    except (celpy.CELEvalError, celpy.CELParseError):
        return ERROR


def _to_celpy(value: Any) -> Any:
    match value:
        case None:
            return None
        case bool():
            return ct.BoolType(value)
        case Uint():
            return ct.UintType(value)
        case int():
            return ct.IntType(value)
        case float():
            return ct.DoubleType(value)
        case str():
            return ct.StringType(value)
        case bytes():
            return ct.BytesType(value)
        case datetime():
            return ct.TimestampType(value)
        case timedelta():
            return ct.DurationType(value)
        case list():
            return ct.ListType([_to_celpy(item) for item in value])
        case dict():
            return ct.MapType({ct.StringType(key): _to_celpy(item) for key, item in value.items()})
    raise AssertionError(type(value))


def _from_celpy(value: Any) -> list[Any]:
    match value:
        case None:
            return ["null", None]
        case ct.BoolType():
            return ["bool", bool(value)]
        case ct.UintType():
            return ["uint", str(int(value))]
        case ct.IntType():
            return ["int", str(int(value))]
        case ct.DoubleType():
            return ["double", _double(float(value))]
        case ct.StringType():
            return ["string", str(value)]
        case ct.BytesType():
            return ["bytes", base64.b64encode(bytes(value)).decode()]
        case ct.TimestampType():
            return ["timestamp", _moment(value)]
        case ct.DurationType():
            return ["duration", str(value // timedelta(microseconds=1))]
        case ct.ListType():
            return ["list", [_from_celpy(item) for item in value]]
        case ct.MapType():
            return ["map", sorted(([_from_celpy(key), _from_celpy(item)] for key, item in value.items()), key=str)]
        case bool():
            return ["bool", value]
        case str():  # its sum of two strings is Python's own string
            return ["string", value]
        case float():
            return ["double", _double(value)]
        case celpy.CELEvalError():
            raise value
    return ["type", getattr(value, "__name__", str(value))]
