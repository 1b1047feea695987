"""The examples, spoiled by a seeded hand: whatever comes out is said with its file, its line and what to do, at a bounded cost."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from trunkline.cli.main import app
from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests.check import examine
from trunkline.core.manifests.findings import Findings
from trunkline.core.manifests.load import gather_files, gather_text
from trunkline.core.manifests.problems import Problem
from trunkline.registry.schema import Schema

EXAMPLES = Path(__file__).parents[3] / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))
SEED = int(os.environ.get("TRUNKLINE_TEST_SEED", "10"))
ROUNDS = int(os.environ.get("TRUNKLINE_TEST_ROUNDS", "4"))
"""Of each example."""
MACHINERY = ("Traceback", "pydantic", "Input should", "object at 0x", "NoneType", "KeyError", "yaml.")

Spoil = Callable[[bytes, random.Random], bytes]


def _line(data: bytes, chance: random.Random, change: Callable[[str], str]) -> bytes:
    """With one line changed, of those that say something."""
    lines = data.decode().split("\n")
    at = chance.choice(
        [number for number, line in enumerate(lines) if ":" in line and not line.lstrip().startswith("#")]
    )
    lines[at] = change(lines[at])
    return "\n".join(lines).encode()


def _value(word: str) -> Spoil:
    return lambda data, chance: _line(data, chance, lambda line: f"{line.partition(':')[0]}: {word}")


def _key(word: str) -> Spoil:
    def change(line: str) -> str:
        key, _, value = line.partition(":")
        return f"{key[: len(key) - len(key.lstrip(' -'))]}{word}:{value}"

    return lambda data, chance: _line(data, chance, change)


def _insert(what: bytes) -> Spoil:
    def spoil(data: bytes, chance: random.Random) -> bytes:
        at = chance.randrange(len(data.decode()) + 1)
        before = len(data.decode()[:at].encode())
        return data[:before] + what + data[before:]

    return spoil


def _deleted(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    del lines[chance.randrange(len(lines))]
    return b"\n".join(lines)


def _doubled(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    at = chance.randrange(len(lines))
    return b"\n".join([*lines[:at], lines[at], *lines[at:]])


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


TRAPS: dict[str, Spoil] = {
    "a tab as indentation": lambda data, chance: _line(data, chance, lambda line: "\t" + line.lstrip()),
    "a tab within": _insert(b"\t"),
    "one blank more": lambda data, chance: _line(data, chance, lambda line: " " + line),
    "one blank less": lambda data, chance: _line(data, chance, lambda line: line[1:]),
    "no as a key": _key("no"),
    "on as a key": _key("on"),
    "a misspelt key": _key("spce"),
    "a key that is a number": _key("5"),
    "no as a value": _value("no"),
    "on as a value": _value("on"),
    "a list": _value("[1, 2]"),
    "a mapping": _value("{a: {b: c}}"),
    "a number": _value("17"),
    "a huge number": _value("1" + "0" * 400),
    "nothing": _value(""),
    "not a number": _value(".nan"),
    "an alias": _value("*all"),
    "an anchor": _value("&all x"),
    "a tag": _value("!!python/object/apply:os.system ['true']"),
    "a template without quotes": _value("{{ event.id }}"),
    "an expression with a colon": _value("event.a ? 'b: c' : 'd'"),
    "an expression that is none": _value("event.(("),
    "a deep expression": _value("(" * 3_000 + "1" + ")" * 3_000),
    "a long expression": _value(" + ".join(["event.total"] * 2_000)),
    "a pattern that explodes": _value("event.id.matches('(a+)+$')"),
    "a reference": _value("${env:NOT_SET}"),
    "a store that is none": _value("${vault:a#b}"),
    "a file that is none": _value("${file:/no/such/file}"),
    "a path upwards": _value("../../../../etc/passwd"),
    "a line deleted": _deleted,
    "a line twice": _doubled,
    "the end cut off": _cut,
    "NUL": _insert(b"\0"),
    "a bell": _insert(b"\x07"),
    "a no-break space": _insert("\u00a0".encode()),
    "a zero-width space": _insert("\u200b".encode()),
    "a byte of latin-1": _insert(b"\xfc"),
    "half of a sign": _insert("\U0001f680".encode()[:2]),
    "a lone surrogate": _insert(b"\xed\xa0\x80"),
    "CRLF": lambda data, _: data.replace(b"\n", b"\r\n"),
    "CR": lambda data, _: data.replace(b"\n", b"\r"),
    "BOM": lambda data, _: b"\xef\xbb\xbf" + data,
    "BOM within": _insert(b"\xef\xbb\xbf"),
    "UTF-16": lambda data, _: data.decode().encode("utf-16"),
    "UTF-16 without BOM": lambda data, _: data.decode().encode("utf-16-le"),
    "UTF-32": lambda data, _: data.decode().encode("utf-32"),
    "latin-1": lambda data, _: data.replace(b"name:", "näme:".encode("latin-1"), 1),
}


def _problems(file: Path) -> list[Problem]:
    try:
        found = gather_files([file])
    except ConfigurationError as error:  # nothing is left in it
        if error.code != "manifest.file":
            raise
        return []
    return examine(found, schema_check=Schema, registered=lambda _topic: None).problems


@pytest.mark.parametrize("example", FILES, ids=[str(file.relative_to(EXAMPLES)) for file in FILES])
def test_whatever_is_spoiled_is_said_with_its_line_and_what_to_do(example: Path, tmp_path: Path) -> None:
    chance = random.Random(f"{SEED} {example.relative_to(EXAMPLES)}")
    good, file = example.read_bytes(), tmp_path / "spoiled.yaml"
    for name in chance.sample(sorted(TRAPS), ROUNDS):
        data = TRAPS[name](good, chance)
        file.write_bytes(data)
        for problem in _problems(file):
            about = f"{SEED} {name} {problem!r:.1500}"
            assert problem.file == str(file), about
            assert 1 <= problem.line <= len(data.splitlines()) + 1, about
            assert problem.message, about
            assert problem.code != "plugin.failed", about
            assert problem.hint or problem.field, about
            said = f"{problem.message} {problem.hint or ''}"
            assert not [word for word in MACHINERY if word in said], about
            assert len(said) < 2_000, about
            assert said.replace("\n", "").isprintable(), about


@pytest.mark.parametrize(
    "name", ["a deep expression", "a lone surrogate", "NUL", "UTF-16 without BOM", "latin-1", "CR", "the end cut off"]
)
def test_each_trap_is_a_message_of_the_command_and_no_traceback(name: str, tmp_path: Path) -> None:
    good = (EXAMPLES / "quickstart" / FILES_OF_QUICKSTART[0]).read_bytes()
    file = tmp_path / "spoiled.yaml"
    file.write_bytes(TRAPS[name](good, random.Random(f"{SEED} {name}")))
    result = CliRunner().invoke(app, ["validate", "--against", "none", "-f", str(file)])
    assert result.exit_code in {0, 2}, result.output
    assert "Traceback" not in result.output
    assert "defect of Trunkline" not in result.output
    if result.exit_code:
        assert f"{file}" in result.output.replace("\n", "")


FILES_OF_QUICKSTART = sorted(file.name for file in FILES if file.parent.name == "quickstart")


def _calls(action: Callable[[], object]) -> int:
    """How many functions were called meanwhile: work that no other process can make longer."""
    count = 0

    def count_call(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event == "call"

    sys.setprofile(count_call)
    try:
        action()
    finally:
        sys.setprofile(None)
    return count


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{after}: &{after} [{', '.join([f'*{before}'] * 9)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
FLOODS = {
    "aliases of aliases": BOMB,
    "five megabytes": "a: " + "x" * 4_200_000,
    "brackets": "a: " + "[" * 50_000,
    "one key of many": "{" + "a: 1, " * 4_000 + "}",
    "documents": "---\na: 1\n" * 500,
    "a wide mapping": "".join(f"k{number}: v\n" for number in range(4_000)),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_refused_at_the_cost_of_reading_it(name: str) -> None:
    found: list[Findings] = []
    calls = _calls(lambda: found.append(examine(gather_text(FLOODS[name], "flood.yaml"))))
    assert found[0].problems
    assert all(problem.line >= 1 and problem.file == "flood.yaml" for problem in found[0].problems)
    assert calls < 10 * len(FLOODS[name].encode())
