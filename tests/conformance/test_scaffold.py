"""A scaffolded plug-in passes its tests, the linter and the type checker before anybody has touched it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from trunkline.cli.scaffold import PluginKind, entry_point_table, package_of, pyproject_lines, scaffold_plugin
from trunkline.core.errors import ConfigurationError

ROOT = Path(__file__).resolve().parents[2]
PLUGINS: list[tuple[PluginKind, str]] = [("source", "acme_feed"), ("sink", "acme_crm"), ("step", "shout")]
PYTEST_INI = "[pytest]\nfilterwarnings = error\nasyncio_default_fixture_loop_scope = function\n"


def ran(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A Python module run in `folder`, with the project importable and no coverage of pytest's own settings."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env={**variables, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    for kind, name in PLUGINS:
        scaffold_plugin(kind, name, tmp_path)
    (tmp_path / "pytest.ini").write_text(PYTEST_INI, encoding="utf-8")
    return tmp_path


def test_the_tests_of_a_new_plugin_pass(plugins: Path) -> None:
    result = ran(plugins, "pytest", "-q", "-p", "no:cacheprovider", ".")
    assert result.returncode == 0, result.stdout + result.stderr
    for _, name in PLUGINS:
        alone = plugins / name / "conformance.py"
        assert alone.is_file()
    assert "passed" in result.stdout


def test_a_new_plugin_passes_the_linter(plugins: Path) -> None:
    config = ("--config", str(ROOT / "pyproject.toml"), "--no-cache", ".")
    for command in (("check",), ("format", "--check")):
        result = ran(plugins, "ruff", *command, *config)
        assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
def test_a_new_plugin_passes_the_strict_type_checker(plugins: Path, tmp_path: Path) -> None:
    packages = [argument for _, name in PLUGINS for argument in ("-p", name)]
    result = ran(plugins, "mypy", "--strict", "--config-file=", f"--cache-dir={tmp_path / 'cache'}", *packages)
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_files_are_told_and_the_lines_of_pyproject_name_the_class(tmp_path: Path) -> None:
    made = scaffold_plugin("sink", "acme_crm", tmp_path)
    assert {path.name for path in made} == {
        "__init__.py",
        "settings.py",
        "sink.py",
        "README.md",
        "conformance.py",
        "test_acme_crm.py",
    }
    assert all(path.is_file() for path in made)
    assert not any("@" in path.read_text(encoding="utf-8").replace("@property", "") for path in made)
    assert pyproject_lines("sink", "acme_crm", tmp_path) == ("acme_crm = []", 'acme_crm = "acme_crm.sink:AcmeCrmSink"')
    assert entry_point_table("step") == '[project.entry-points."trunkline.steps"]'


def test_a_folder_within_a_package_gives_the_import_path(tmp_path: Path) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    for folder in ("outer", "outer/inner"):
        (tmp_path / folder / "__init__.py").touch()
    assert package_of(tmp_path / "outer" / "inner" / "new") == "outer.inner.new"


@pytest.mark.parametrize("name", ["Acme", "acme-crm", "1st", "", "a__b", "../x", "json"])
def test_a_name_that_can_not_be_one_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        scaffold_plugin("sink", name, tmp_path)
    assert caught.value.code == "scaffold.name"
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_already_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "acme").mkdir()
    with pytest.raises(ConfigurationError, match="there already"):
        scaffold_plugin("step", "acme", tmp_path)
    assert list((tmp_path / "acme").iterdir()) == []
