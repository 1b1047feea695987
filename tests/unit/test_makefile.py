"""Setting up says one line where it works, and everything where it fails."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
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
    environment = {**os.environ, "PATH": f"{clone / 'bin'}{os.pathsep}{os.environ['PATH']}"}
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


def test_a_fresh_clone_is_set_up_in_one_line(clone: Path) -> None:
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
