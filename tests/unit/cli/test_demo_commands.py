"""What the demo prints to be typed can be typed: in the folder where it was printed, however the demo was called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

from trunkline.cli import main
from trunkline.cli.demo.scene import LOOK_AROUND, called, stay_command

PROGRAM = Path(sys.executable).with_name("trunkline")


def _version_by(command: str, folder: Path) -> str:
    done = subprocess.run(
        ["/bin/sh", "-c", f"{command} --version"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("argument", [str(PROGRAM), main.__file__])
def test_a_program_that_is_not_on_the_path_is_called_by_where_it_is(
    argument: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "a folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PATH", os.defpath)
    monkeypatch.setattr(sys, "argv", [argument, "demo"])
    assert called() != "trunkline"
    assert _version_by(called(), folder).startswith("trunkline ")


def test_a_program_on_the_path_is_called_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{PROGRAM.parent}{os.pathsep}{os.defpath}")
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), "demo"])
    assert called() == "trunkline"
    assert _version_by(called(), tmp_path).startswith("trunkline ")


def test_another_program_of_the_name_on_the_path_is_not_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = tmp_path / "trunkline"
    other.write_text("#!/bin/sh\necho another\n", encoding="utf-8")
    other.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.defpath}")
    monkeypatch.setattr(sys, "argv", [str(PROGRAM), "demo"])
    assert shutil.which("trunkline") == str(other)
    assert _version_by(called(), tmp_path).startswith("trunkline ")


def test_the_command_that_keeps_the_demo_up_names_the_folder_where_it_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert stay_command(tmp_path / ".trunkline" / "demo") == f"{called()} demo --stay"
    assert stay_command(tmp_path / "my home" / "demo") == f"{called()} demo --stay --home 'my home'"


def test_each_command_that_is_printed_exists() -> None:
    known = get_command(main.app).commands  # type: ignore[attr-defined]
    assert {command.split()[0] for command in LOOK_AROUND} <= set(known)
