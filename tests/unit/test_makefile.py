"""Setting up says one line where it works, and everything where it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
OF_AN_OUTER_MAKE = ("MAKEFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "MFLAGS", "GNUMAKEFLAGS", "MAKEFILES")
UV = """#!/bin/sh
case "$1" in
--version) echo "uv 0.9.0"; exit 0 ;;
esac
for one in "$@"; do [ "$one" = --quiet ] && quiet=1; done
if [ -z "$quiet" ]; then for number in $(seq 105); do echo " + package-$number==1.0" >&2; done; fi
if [ -e broken ]; then echo "error: the lock does not fit" >&2; exit 2; fi
mkdir -p .venv
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone whose uv installs nothing, and prints a line for each package unless it is told to be quiet."""
    for name in ("Makefile", "pyproject.toml", "uv.lock"):
        shutil.copy(ROOT / name, tmp_path / name)
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "uv").write_text(UV, encoding="utf-8")
    (tools / "uv").chmod(0o755)
    return tmp_path


def _set_up(clone: Path) -> subprocess.CompletedProcess[str]:
    # Under `make test`, make would take itself for a part of that one: it would name its level and folder, and take over its options.
    environment = {name: value for name, value in os.environ.items() if name not in OF_AN_OUTER_MAKE}
    environment["PATH"] = f"{clone / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["make", ".venv/.installed"],
        cwd=clone,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("outer", [{}, {"MAKELEVEL": "1", "MAKEFLAGS": "w"}], ids=["alone", "under-make"])
def test_a_fresh_clone_is_set_up_in_one_line(
    clone: Path, monkeypatch: pytest.MonkeyPatch, outer: dict[str, str]
) -> None:
    for name, value in outer.items():
        monkeypatch.setenv(name, value)
    done = _set_up(clone)
    assert done.returncode == 0, done.stdout
    (line,) = done.stdout.splitlines()
    assert line.startswith("Installing Trunkline's environment into .venv")
    assert line.endswith(" done")
    assert (clone / ".venv" / ".installed").exists()
    assert _set_up(clone).stdout.splitlines() in ([], ["make: '.venv/.installed' is up to date."])


def test_what_fails_is_said_and_not_taken_for_done(clone: Path) -> None:
    (clone / "broken").touch()
    done = _set_up(clone)
    assert done.returncode != 0
    assert "error: the lock does not fit" in done.stdout
    assert " done" not in done.stdout
    assert not (clone / ".venv" / ".installed").exists()
