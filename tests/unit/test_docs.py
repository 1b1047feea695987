"""The documentation is true: links resolve, commands exist, examples are valid, and every invariant is kept and tested somewhere."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

from tools.docs import with_lines
from trunkline.cli.main import app
from trunkline.core.event import Event
from trunkline.core.expressions import compile_expression
from trunkline.core.manifests.check import check
from trunkline.core.manifests.documents import Document
from trunkline.core.manifests.load import load_documents, load_text
from trunkline.core.manifests.yaml import read_documents

ROOT = Path(__file__).parents[2]
HAND_WRITTEN = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name not in {"connectors", "reference"}),
    ]
)
PAGES = sorted({*HAND_WRITTEN, *(ROOT / "docs").rglob("*.md")})
PLUGIN_READMES = sorted(
    page for folder in ("connectors", "streams", "sinks") for page in (ROOT / folder).rglob("README.md")
)
CODE = ("trunkline", "connectors", "streams", "sinks")

LINK = re.compile(r"(?<!!)\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
INVARIANT = re.compile(r"\bI(?:-R)?\d+(?=:)")


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def _prose(text: str) -> str:
    return FENCE.sub("", text)


def _blocks(text: str, language: str) -> Iterator[str]:
    return (found[3] for found in FENCE.finditer(text) if found[2] == language)


@cache
def _anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives headings: lower case, spaces as hyphens, other signs left out."""
    titles = re.findall(r"^#+ (.+)$", _prose(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


# --- links ---


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(_prose(page.read_text(encoding="utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        if not found.exists() or (anchor and anchor not in _anchors(found)):
            broken.append(target)
    assert not broken, f"{_name(page)} links to {broken}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, waiting = set(), {ROOT / "README.md"}
    while waiting:
        page = waiting.pop()
        reached.add(page)
        targets = LINK.findall(_prose(page.read_text(encoding="utf-8")))
        linked = {(page.parent / target.partition("#")[0]).resolve() for target in targets if ":" not in target}
        waiting |= {one for one in linked if one.suffix == ".md"} - reached
    assert not set(PAGES) - reached


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_no_page_names_a_path_of_somebodys_machine(page: Path) -> None:
    found = re.findall(r"(?<![\w.}])/(?:home|root|Users|work|tmp)/\S*", page.read_text(encoding="utf-8"))
    assert not found, f"{_name(page)} names {found}"


def test_every_decision_and_runbook_is_listed() -> None:
    for folder in ("adr", "runbooks"):
        listed = set(LINK.findall((ROOT / "docs" / folder / "README.md").read_text(encoding="utf-8")))
        assert listed == {page.name for page in (ROOT / "docs" / folder).glob("*.md")} - {"README.md"}


def test_decisions_are_numbered_without_a_gap_and_say_what_they_must() -> None:
    pages = sorted(page for page in (ROOT / "docs" / "adr").glob("*.md") if page.name != "README.md")
    assert [int(page.name[:4]) for page in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert text.startswith(f"# {int(page.name[:4])}. "), _name(page)
        assert re.findall(r"^## (\w+)$", text, re.MULTILINE) == ["Context", "Decision", "Consequences"], _name(page)


# --- invariants ---


def _table_of_invariants() -> list[tuple[str, list[str], list[str]]]:
    """Number, modules and tests of every row."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (I(?:-R)?\d+) \|[^|]*\|([^|]*)\|([^|]*)\|$", text, re.MULTILINE)
    assert rows
    return [
        (number, re.findall(r"`([^`:]+):\d+`", kept), re.findall(r"`([^`]+)`", tests)) for number, kept, tests in rows
    ]


@cache
def _invariants_of(module: Path) -> set[str]:
    text = module.read_text(encoding="utf-8")
    if not INVARIANT.search(text):
        return set()
    comments = "\n".join(line.partition("# ")[2] for line in text.splitlines() if "# I" in line)
    return set(INVARIANT.findall(comments + (ast.get_docstring(ast.parse(text)) or "")))


@cache
def _functions_of(module: Path) -> set[str]:
    tree = ast.parse(module.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize("row", _table_of_invariants(), ids=lambda row: row[0])
def test_an_invariant_stands_in_the_code_that_keeps_it_and_names_a_test_that_exists(
    row: tuple[str, list[str], list[str]],
) -> None:
    number, modules, tests = row
    assert modules
    assert tests
    for module in modules:
        assert number in _invariants_of(ROOT / module), f"{module} has no comment `# {number}:`"
    for test in tests:
        file, *_, function = test.split("::")
        assert Path(file).name.startswith("test_"), f"{number} names {file}, which pytest does not collect"
        assert (ROOT / file).is_file(), f"{number} names {file}, which does not exist"
        assert function in _functions_of(ROOT / file), f"{number} names {test}, which does not exist"


def test_the_table_names_the_lines_that_keep_the_invariants() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert text == with_lines(text, ROOT), "`make docs` writes the lines anew"
    assert ":0`" not in text


def test_every_invariant_of_the_code_is_in_the_table() -> None:
    stated = {
        (number, str(module.relative_to(ROOT)))
        for folder in CODE
        for module in (ROOT / folder).rglob("*.py")
        for number in _invariants_of(module)
    }
    assert stated == {(number, module) for number, modules, _ in _table_of_invariants() for module in modules}


# --- examples ---


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=_name)
def test_the_manifests_of_a_page_are_valid_together(page: Path) -> None:
    blocks = list(_blocks(page.read_text(encoding="utf-8"), "yaml"))
    text = "\n---\n".join(blocks)
    if not blocks:
        assert "```yml" not in page.read_text(encoding="utf-8")
        return
    check(load_text(text, _name(page)))


@pytest.mark.parametrize("page", PLUGIN_READMES, ids=_name)
def test_the_manifests_of_a_plugins_readme_are_valid_once_their_topics_are_declared(
    page: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in re.findall(r"\$\{env:(\w+)\}", page.read_text(encoding="utf-8")):
        monkeypatch.setenv(variable, "https://example.com")
    documents = [
        document
        for block in _blocks(page.read_text(encoding="utf-8"), "yaml")
        for document in _documents(block, _name(page))
    ]
    topics = {document.data["metadata"]["name"] for document in documents if document.data["kind"] == "Topic"}
    read = {name for document in documents for name in _as_list(document.data["spec"].get("from"))}
    written = {
        target["topic"] if isinstance(target, dict) else target
        for document in documents
        for target in _as_list(document.data["spec"].get("to"))
    }
    for name in sorted((read | written) - topics):
        documents += _documents(
            f"{{apiVersion: trunkline/v1, kind: Topic, metadata: {{name: {name}}}}}", "a topic of others"
        )
    check(load_documents(documents))


def _documents(text: str, name: str) -> list[Document]:
    documents, problems = read_documents(text, name)
    assert problems == []
    return documents


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def test_the_example_of_the_readme_is_short() -> None:
    block = next(_blocks((ROOT / "README.md").read_text(encoding="utf-8"), "yaml"))
    assert len(block.splitlines()) <= 22


EVENT: dict[str, Any] = {
    "carrier": "UA",
    "flight": 1545,
    "dep_delay": 42.5,
    "tailnum": None,
    "tags": ["late", "long"],
    "at": datetime(2013, 1, 1, 10, 15, tzinfo=UTC),
}
SCHEMA = {
    "type": "record",
    "name": "Departure",
    "fields": [
        {"name": "carrier", "type": "string"},
        {"name": "flight", "type": "int"},
        {"name": "dep_delay", "type": ["null", "double"]},
        {"name": "tailnum", "type": ["null", "string"]},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    ],
}
EXPRESSIONS = re.findall(
    r"^\| `([^`]+)` \| `([^`]+)` \|$",
    (ROOT / "docs" / "expressions.md").read_text(encoding="utf-8").split("## By example")[1].split("\n## ")[0],
    re.MULTILINE,
)


@pytest.mark.parametrize(("text", "result"), EXPRESSIONS, ids=[text for text, _ in EXPRESSIONS])
def test_an_expression_of_the_docs_gives_what_the_docs_say(text: str, result: str) -> None:
    schema = None if "event.gate" in text else SCHEMA  # with a schema, a field that can't be there is an error already
    assert compile_expression(text, schema=schema)(EVENT, Event(EVENT)) == json.loads(result)


def _amounts_cut_off(text: str) -> list[str]:
    """Where `int` is asked of a product or a quotient: it cuts off what a double lacks to the number that was meant."""
    return re.findall(r"\bint\((?!math\.)[^()]*[*/][^()]*\)", text)


def test_getting_started_loses_no_cent() -> None:
    page = ROOT / "docs" / "getting-started.md"
    manifest = "\n---\n".join(_blocks(page.read_text(encoding="utf-8"), "yaml"))
    (text,) = re.findall(r"cents: \"(.+?)\"", manifest)
    expression = compile_expression(
        text, schema={"type": "record", "name": "O", "fields": [{"name": "total", "type": "double"}]}
    )
    for cents in range(10_000, 40_000):
        assert expression({"total": cents / 100}, Event({})) == cents


@pytest.mark.parametrize("page", [*PAGES, *PLUGIN_READMES, *sorted((ROOT / "examples").rglob("*.y*ml"))], ids=_name)
def test_no_example_cuts_an_amount_off(page: Path) -> None:
    assert _amounts_cut_off("cents: int(event.total * 100.0)"), "what is looked for"
    assert not _amounts_cut_off(page.read_text(encoding="utf-8"))


# --- names ---


def _spoken_commands(text: str) -> Iterator[list[str]]:
    """The words of every `trunkline …` in code blocks and code spans."""
    lines = [line for block in _blocks(text, "sh") for line in block.splitlines()]
    spans = re.findall(r"`([^`\n]+)`", _prose(text))
    for line in [*lines, *spans]:
        spoken = re.match(r"\s*(?:\.venv/bin/)?trunkline (.+)$", line)
        if spoken:
            yield shlex.split(spoken[1], comments=True)


@cache
def _command_line() -> Any:
    return get_command(app)


def _check_command(words: list[str]) -> str | None:
    """What is wrong with a command line, or None."""
    command = _command_line()
    while words and getattr(command, "commands", None):
        if words[0] not in command.commands:
            return None if words[0].startswith("-") else f"no command is called {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = [word for word in words if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in known]
    return f"{command.name} has no {unknown}" if unknown else None


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_every_command_of_the_docs_exists_with_its_options(page: Path) -> None:
    problems = [
        f"trunkline {shlex.join(words)}: {problem}"
        for words in _spoken_commands(page.read_text(encoding="utf-8"))
        if (problem := _check_command(words)) is not None
    ]
    assert not problems


def test_the_readme_names_commands_at_all() -> None:
    assert len(list(_spoken_commands((ROOT / "README.md").read_text(encoding="utf-8")))) >= 3


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=_name)
def test_every_make_target_of_the_docs_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    spoken = {
        *re.findall(r"`make ([a-z-]+)", text),
        *re.findall(r"^make ([a-z-]+)", "\n".join(_blocks(text, "sh")), re.MULTILINE),
    }
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert spoken <= targets


def test_make_alone_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    listed = re.findall(r"^([a-z-]+):.*## \w", makefile, re.MULTILINE)
    assert listed == re.findall(r"^\.PHONY: ([a-z-]+)$", makefile, re.MULTILINE)
    assert {"demo", "test", "test-all", "lint", "format", "chaos", "bench", "docs", "clean"} <= set(listed)


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=_name)
def test_every_variable_of_the_docs_is_read_somewhere(page: Path) -> None:
    spoken = set(re.findall(r"TRUNKLINE_[A-Z_]+", page.read_text(encoding="utf-8")))
    read = _variables_of_the_code()
    unknown = {
        name for name in spoken if not any(name == one or (one[-1] == "_" and name.startswith(one)) for one in read)
    }
    assert not unknown


@cache
def _variables_of_the_code() -> set[str]:
    modules = [module for folder in (*CODE, "tests") for module in (ROOT / folder).rglob("*.py")]
    text = "\n".join(module.read_text(encoding="utf-8") for module in modules)
    return set(re.findall(r"TRUNKLINE_[A-Z_]+", text))


@pytest.mark.parametrize("page", HAND_WRITTEN, ids=_name)
def test_every_file_of_the_house_that_a_page_names_exists(page: Path) -> None:
    named = re.findall(
        r"`((?:trunkline|connectors|streams|sinks|tests)/[\w/.]+\.\w+)(?:::\w+)?`", page.read_text(encoding="utf-8")
    )
    missing = [name for name in named if not (ROOT / name).exists()]
    assert not missing


def test_the_error_codes_of_the_runbooks_exist() -> None:
    source = "\n".join(
        module.read_text(encoding="utf-8") for folder in CODE for module in (ROOT / folder).rglob("*.py")
    )
    for page in (ROOT / "docs" / "runbooks").glob("*.md"):
        for code in re.findall(r"`([a-z]+\.[a-z_]+)`", page.read_text(encoding="utf-8")):
            is_topic_setting = code.endswith(".ms")
            assert is_topic_setting or f'"{code}"' in source, f"{_name(page)} names the code {code}"


def test_the_page_of_dependencies_names_all_of_them_and_no_other() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    asked = [
        *project["project"]["dependencies"],
        *(one for extra in project["project"]["optional-dependencies"].values() for one in extra),
        *project["dependency-groups"]["dev"],
    ]
    names = {re.split(r"[\[><=~!; ]", one)[0].lower() for one in asked} - {"trunkline"}
    page = (ROOT / "docs" / "adr" / "0011-dependencies.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE)) == names


def test_every_yaml_block_can_be_read() -> None:
    blocks = [block for page in PAGES for block in _blocks(page.read_text(encoding="utf-8"), "yaml")]
    assert blocks
    for block in blocks:
        assert any(yaml.safe_load_all(block)) or block.startswith("#"), f"nothing is in {block!r}"
