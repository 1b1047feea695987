"""`trunkline mock`: stand-ins listed, set, started and ended."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

from typer.testing import CliRunner, Result

from trunkline.cli.main import app


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["mock", *arguments])


def test_without_names_the_stand_ins_are_listed() -> None:
    listed = {one["name"] for one in json.loads(call("-o", "json").stdout)}
    assert listed == {point.name for point in entry_points(group="trunkline.mocks")}


def test_an_unknown_stand_in_suggests_the_nearest() -> None:
    result = call("slak")
    assert result.exit_code == 2
    assert "did you mean 'slack'?" in result.stderr


def test_a_setting_that_is_unknown_or_wrong_is_named() -> None:
    unknown = call("slack", "--set", "slack.tokn=x")
    assert unknown.exit_code == 2
    assert "did you mean 'token'?" in unknown.stderr
    wrong = call("slack", "--set", "slack.channels=7")
    assert wrong.exit_code == 2
    assert "--set slack.channels" in wrong.stderr
    assert call("slack", "--set", "nonsense").exit_code == 2
    assert call("slack", "--set", "sftp.user=x").exit_code == 2


def test_it_serves_until_sigterm_and_writes_variables_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "mock.env"
    command = [sys.executable, "-m", "trunkline.cli.main", "mock", "slack", "--env-file", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            assert first.startswith("export SLACK_")
        finally:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert first.removeprefix("export ") in file.read_text(encoding="utf-8")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
