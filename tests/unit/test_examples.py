"""Every YAML of the project that shows manifests is one that Trunkline takes: the examples, and the fenced blocks of the docs."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from trunkline.cli.demo.flights import read_flights
from trunkline.core.manifests import ManifestError, Project, load_files, load_text
from trunkline.core.manifests.check import check

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
PROJECTS = sorted({path.parent for path in EXAMPLES.rglob("*.yaml")})
_SKIPPED = {".venv", ".git", ".trunkline", "node_modules", "scaffold"}
_FENCE = re.compile(r"^```ya?ml\n(.*?)^```", re.DOTALL | re.MULTILINE)
_REFERENCE = re.compile(r"\$\{env:([A-Z0-9_]+)\}")
_HOST_KEY = "SHA256:uNiVztksCsDhcc0u9e8BrrJXVGDk8y5C8x8bYzGkKGM"
_VALUES = {"SFTP_PORT": "22", "SFTP_HOST_KEY": _HOST_KEY, "SLACK_INTERVAL": "1s"}


@dataclass(frozen=True)
class Block:
    """A fenced YAML block and where it stands."""

    file: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.file.relative_to(ROOT)}:{self.line}"


@cache
def fenced_blocks() -> list[Block]:
    blocks = []
    for file in sorted(ROOT.rglob("*.md")):
        if _SKIPPED & set(file.relative_to(ROOT).parts):
            continue
        text = file.read_text(encoding="utf-8")
        blocks += [Block(file, text.count("\n", 0, one.start()) + 2, one[1]) for one in _FENCE.finditer(text)]
    return blocks


def set_variables(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a reader would have set: each variable that the text names, as an address, a port or a name."""
    for name in _REFERENCE.findall(text):
        is_address = name.endswith(("_URL", "_API", "_TARGET"))
        monkeypatch.setenv(name, _VALUES.get(name, "https://example.com" if is_address else "a-value-of-the-reader"))


def is_manifest(text: str) -> bool:
    return any(isinstance(document, dict) and "apiVersion" in document for document in yaml.safe_load_all(text))


def declare_what_is_left_out(project: Project) -> None:
    """A block of the docs shows one thing: the topics that it reads and writes, and connections, may be left out."""
    topics = {topic for one in (*project.streams.values(), *project.sinks.values()) for topic in one.spec.from_}
    topics |= {target.topic for one in (*project.streams.values(), *project.sources.values()) for target in one.spec.to}
    for topic in sorted(topics):
        if project.topic_of(topic) is None:
            added = load_text(
                f'apiVersion: trunkline/v1\nkind: Topic\nmetadata: {{name: "{topic}"}}\n', "left-out.yaml"
            )
            project.topics.update(added.topics)
            project.origins.update(added.origins)
    for pipeline in (*project.sources.values(), *project.sinks.values()):
        name = pipeline.spec.connection
        if name is not None and name not in project.connections:
            example = yaml.safe_dump(example_connection(pipeline.spec.connector, name))
            added = load_text(example, "left-out.yaml")
            project.connections.update(added.connections)
            project.origins.update(added.origins)


def example_connection(connector: str, name: str) -> dict[str, Any]:
    """The connection that the docs show for a plug-in, under another name."""
    for block in fenced_blocks():
        for document in yaml.safe_load_all(block.text):
            if not isinstance(document, dict) or document.get("kind") != "Connection":
                continue
            if document["spec"]["connector"] == connector:
                return {**document, "metadata": {"name": name}}
    raise AssertionError(f"no document shows a connection of {connector}")


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda folder: folder.name)
def test_an_example_is_valid(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for file in folder.glob("*.yaml"):
        set_variables(file.read_text(encoding="utf-8"), monkeypatch)

    check(load_files([folder]))


@pytest.mark.parametrize("block", fenced_blocks(), ids=str)
def test_a_yaml_block_of_the_docs_is_valid(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_manifest(block.text):
        return  # a part of a manifest: that it is YAML at all was checked
    set_variables(block.text, monkeypatch)
    project = load_text(block.text, str(block))
    declare_what_is_left_out(project)

    check(project)


def test_the_checks_of_the_examples_would_find_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    text = (EXAMPLES / "quickstart" / "quickstart.yaml").read_text(encoding="utf-8")
    set_variables(text, monkeypatch)
    project = load_text(text.replace("event.order", "event.oder"), "quickstart.yaml")

    with pytest.raises(ManifestError, match="oder"):
        check(project)


def test_every_example_is_in_the_list_of_the_readme() -> None:
    listed = re.findall(r"^\| `([a-z-]+)/`", (EXAMPLES / "README.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert sorted(listed) == [folder.name for folder in PROJECTS]


def test_the_quickstart_is_as_short_as_it_says() -> None:
    manifest = (EXAMPLES / "quickstart" / "quickstart.yaml").read_text(encoding="utf-8")

    assert len(manifest.splitlines()) <= 30


def test_the_flights_of_the_demo_are_those_that_its_readme_tells_of() -> None:
    flights = read_flights()

    assert flights.rows == 3000
    assert flights.bad_lines == (402, 1203, 2004, 2805)
    assert len(flights.posts) == 200
    assert flights.of_new_airline
    assert flights.critical < set(flights.delayed)
