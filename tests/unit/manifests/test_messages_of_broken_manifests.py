"""What a newcomer reads: each broken manifest is said with its line, its field, what was found there and what to write instead."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.unit.manifests.shop import SHOP, broken, line_of
from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests.check import examine
from trunkline.core.manifests.findings import Findings
from trunkline.core.manifests.load import gather_files, gather_text
from trunkline.core.manifests.problems import Problem
from trunkline.registry.schema import Schema

PLUMBING = ("^[", "Traceback", "pydantic", "resolve references", "start any token", "Input should", "None", "str_")
"""Words of the machinery that no message may have."""


def judged(text: str) -> Findings:
    return examine(gather_text(text, "shop.yaml"))


def only(text: str) -> Problem:
    (problem,) = judged(text).problems
    return problem


# YAML that is none: the old text, the new one, what is in the line that is blamed, the message and the hint.
SYNTAX = [
    ("  start: earliest", "\tstart: earliest", "\tstart", "indented with a tab", "spaces"),
    ("    - filter: event.id", "  \t- filter: event.id", "\t- filter", "indented with a tab", "spaces"),
    ("owner: me", "owner: @team", "@team", "a text that begins with @ must be in quotes", '"@team"'),
    ("owner: me", "owner: %x", "%x", "a text that begins with % must be in quotes", '"%x"'),
    ("owner: me", "owner: `x`", "`x`", "a backtick must be in quotes", '"`x`"'),
    ("start: earliest", "start: &s earliest", "&s", "anchors are refused", "quotes"),
    ("start: earliest", "start: *s", "*s", "aliases are refused", "quotes"),
    ("filter: event.id > 3", "filter: !event.ok", "!event", "tags are refused", "begins with ! in quotes"),
    ("folder: out", "folder: */5 * *", "*/5", "YAML reads * as the begin of an alias", "in quotes"),
    ("folder: out", "folder: a: b", "a: b", "a text with `: ` in it must be in quotes", "quotes"),
    ("event.id > 3", "event.id > 3 ? true : false", "? true", "a text with `: ` in it", "quotes"),
    ("folder: out", 'folder: "out', '"out', "the quote that opens in this line is never closed", "close it"),
    ("event.id > 3", "'event.id > 3", "'event", "the quote that opens in this line is never closed", "close it"),
    ("from: [orders]", "from: [orders", "start: earliest", "the list that opens with [ in line", "close it with ]"),
    ("event.id > 3", '"\\d"', '"\\d"', "a backslash begins an escape", "single quotes"),
    ('url: "/bills/{{ event.id }}"', "url: {{ event.id }}/x", "url: {{ event.id }}/x", "YAML reads `{{`", "template in quotes"),
    ("\n  start: earliest", "\n start: earliest", " start: earliest", "fits none of the lines above", "indentation"),
    ("\n  start: earliest", "\n    start: earliest", "start: earliest", "fits none of the lines above", "indentation"),
    ("steps:\n    - filter", "steps: - filter", "steps:", "a list can't begin here", "`- `"),
    ("start: earliest", "start:earliest", "start:earliest", "neither `name: value` nor an item", "blank after it"),
    ("folder: out", "folder:\u00a0out", "folder:", "a no-break space", "type it anew"),
    ("start: earliest", "start: earliest\n  start: latest", "start: latest\n  steps", "occurs twice, first in line", "remove"),
    ("partitions: 2", "partitions: 010", "010", "YAML reads 010 as the octal number 8", '"010"'),
    ("folder: out", "folder: 0755", "0755", "YAML reads 0755 as the octal number 493", '"0755"'),
    ("folder: out", "folder: 1:30", "1:30", "YAML reads 1:30 as the number 90 (in base 60)", "1m30s"),
    ("partitions: 2", "partitions: .inf", ".inf", ".inf is no number that a manifest can hold", "finite"),
    ("partitions: 2", "partitions: 9" + "9" * 5000, "99999", "more than 64 bits", "quotes"),
    ("owner: me", "? [a] : b", "[a]", "a key must be plain text", "name: value"),
    ("owner: me", "owner: " + "[" * 80 + "]" * 80, "[[[[", "nested deeper than 64", "brackets"),
    ("owner: me", "owner: m\0e", "owner: m", "a control character (U+0000)", "delete"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "blamed", "message", "hint"), SYNTAX)
def test_yaml_that_is_none_is_said_in_the_words_of_who_wrote_it(
    old: str, new: str, blamed: str, message: str, hint: str
) -> None:
    text = broken(old, new)
    problem = only(text)
    assert (problem.file, problem.line, problem.code) == ("shop.yaml", line_of(text, blamed), "manifest.yaml")
    assert message in problem.message
    assert hint in (problem.hint or "")


# Words that YAML or a settings class takes for something else: the old text, the new one, field, message and hint.
VALUES = [
    ("name: customer", "name: no", "spec.schema.fields[1].name", "found false, which is how YAML reads `no`", '"no"'),
    ("name: customer", "name: yes", "spec.schema.fields[1].name", "found true, which is how YAML reads `yes`", '"yes"'),
    ("name: customer", "name: On", "spec.schema.fields[1].name", "found true, which is how YAML reads `On`", '"On"'),
    ("name: customer", "name: 5", "spec.schema.fields[1].name", "text is expected, found the number 5", '"5"'),
    ("type: double", "type: {type: enum, name: S, symbols: [off, a]}", "spec.schema.fields[2].type.symbols[0]", "`off`", '"off"'),
    ("type: double", "type: [null, double]", "spec.schema.fields[2].type[0]", "nothing, which is how YAML reads `null`", '"null"'),
    ("name: Order", "name: no", "spec.schema.name", "which is how YAML reads `no`", '"no"'),
    ("type: double", "type: decimal", "spec.schema.fields[2].type", "there is no Avro type 'decimal'", "logicalType: decimal, precision"),
    ("type: double", "type: date", "spec.schema.fields[2].type", "there is no Avro type 'date'", "{type: int, logicalType: date}"),
    ("type: double", "type: integer", "spec.schema.fields[2].type", "there is no Avro type 'integer'", "write int"),
    ("type: double", "type: duoble", "spec.schema.fields[2].type", "there is no Avro type 'duoble'", "did you mean 'double'?"),
    ("type: double", "type: array", "spec.schema.fields[2].type", "there is no Avro type 'array'", "items: string"),
    ("      - {name: id, type: long}", "      - id", "spec.schema.fields[0]", "a field such as {name: id, type: long}", ""),
    ("{name: id, type: long}", "{name: id}", "spec.schema.fields[0]", "has no 'type' here", ""),
    ("    type: record\n", "", "spec.schema", "has no 'type' here", ""),
    ("    name: Order\n", "", "spec.schema", "has no 'name' here", ""),
    ("filter: event.id > 3", "validate: {schema: {type: record, name: A, fields: [{name: no, type: int}]}}",
     "spec.steps[0].validate.schema.fields[0].name", "how YAML reads `no`", '"no"'),
    ("filter: event.id > 3", "validate: {schema: {type: record, name: A, fields: [{name: a, type: decimal}]}}",
     "spec.steps[0].validate.schema.fields[0].type", "no Avro type 'decimal'", "logicalType: decimal"),
    ("{name: billing, owner: me}", "{name: billing, owner:me}", "metadata.owner:me", "unknown field", "write `owner: me`, with a blank"),
    ("\n  to: [bills]", "\nto: [bills]", "to", "unknown field 'to'", "it belongs to `spec`"),
    ("partitions: 2", "config: {retention.ms: [1]}", "spec.config.retention.ms", "text, a number, true or false is expected", ""),
    ("owner: me", "owner: yes", "metadata.owner", "which is how YAML reads `yes`", '"yes"'),
    ("owner: me", "labels: {tier: 1}", "metadata.labels.tier", "text is expected, found the number 1", '"1"'),
    ("owner: me", "labels: {version: 1.10}", "metadata.labels.version", "the number 1.1 (written 1.10)", '"1.10"'),
    ("owner: me", "labels: [a, b]", "metadata.labels", "a mapping is expected, found a list", "name: value"),
    ("event.id > 3", "no", "spec.steps[0].filter", "which is how YAML reads `no`", '"no"'),
    ("event.id > 3", "[event.id > 3]", "spec.steps[0].filter", "text is expected, found a list", "CEL"),
    ("filter: event.id > 3", "map: {keep: [no]}", "spec.steps[0].map.keep[0]", "how YAML reads `no`", '"no"'),
    ("filter: event.id > 3", "map: {set: {x: 5}}", "spec.steps[0].map.set.x", "found the number 5", '"5"'),
    ("    - filter: event.id > 3", "    - filter", "spec.steps[0]", "a mapping is expected, found 'filter'", "name: value"),
    ("    - filter: event.id > 3", "    -", "spec.steps[0]", "a mapping is expected, found nothing", "name: value"),
    ("  steps:\n    - filter: event.id > 3", "  steps:\n    filter: event.id > 3", "spec.steps", "a list is expected", "- "),
    ("name: billing", "name: Billing Stream", "metadata.name", "lower-case letters a to z", "write billing-stream"),
    ("name: billing", "name: zürich", "metadata.name", "lower-case letters a to z", "write zurich"),
    ("name: billing", "name: заказы", "metadata.name", "lower-case letters a to z", "write another name"),
    ("name: billing", "name: 1.10", "metadata.name", "text is expected", '"1.10"'),
    ("name: bills", "name: a/b", "metadata.name", "can't be the name of a topic", "write a.b"),
    ("  start: latest\n", "", "spec.start", "the field 'start' is missing", "`earliest`, `latest` or a time with zone"),
    ("start: latest", "start: now", "spec.start", "earliest, latest or an RFC 3339 time", ""),
    ("start: latest", "start:", "spec.start", "is expected, found nothing", ""),
    ("start: latest", "start: 2026-01-31", "spec.start", "the time needs a zone", ""),
    ("from: [orders]", "from: orders, bills", "spec.from", "one topic or a list of topics", "write [orders, bills]"),
    ("from: [orders]", "from: {orders: 1}", "spec.from", "a list is expected, found a mapping", "[a, b]"),
    ("from: [orders]", "from: []", "spec.from", "a list that is not empty is expected", "topics it reads"),
    ("partitions: 2", "partitions: two", "spec.partitions", "a whole number is expected, found 'two'", ""),
    ("partitions: 2", "partitions: yes", "spec.partitions", "a number is expected, found true, which is how YAML reads `yes`", ""),
    ("partitions: 2", "partitions: 0", "spec.partitions", "at least 1 is expected, found the number 0", ""),
    ("partitions: 2", "partitions: 2.5", "spec.partitions", "a whole number is expected", ""),
    ("partitions: 2", "trust: extern", "spec.trust", "internal or external is expected, found 'extern'", "'external'"),
    ("partitions: 2", "partitions: ${env:N}", "spec.partitions", "a whole number", "resolved in settings of `config`, and nowhere else"),
    ("connection: peer", "connection: peer\n  delivery: {order: keys}", "spec.delivery.order", "key, partition or none", "'key'"),
    ("connection: peer", "connection: peer\n  delivery: {timeout: 5 minutes}", "spec.delivery.timeout", "such as 30s, 5m", ""),
    ("connection: peer", "connection: peer\n  delivery: {timeout: [5]}", "spec.delivery.timeout", "found a list", ""),
    ("connection: peer", "connection: peer\n  delivery: {hold: 9" + "9" * 400 + "GB}", "spec.delivery.hold", "less than 8 EiB", ""),
    ("connection: peer", "connection: peer\n  delivery: {retry: 5}", "spec.delivery.retry", "a mapping is expected", ""),
    ("connection: peer", "connection: per", "spec.connection", "there is no connection 'per'", "did you mean 'peer'?"),
    ("  connection: peer\n", "", "spec", "'http' needs a connection", "add `connection: peer`"),
    ("connector: http\n  connection", "connector: slack\n  connection", "spec.connection", "is one of 'http', not of 'slack'", ""),
    ("folder: out", "folder: #out", "spec.config.folder", "text is expected, found nothing", "`#` begins a comment"),
    ("{type: csv, columns: [id, customer]}", "{type: xml}", "spec.config.format.type", "csv, jsonl or avro is expected", ""),
    ("{type: csv, columns: [id, customer]}", "cvs", "spec.config.format", "csv, jsonl or avro is expected", "'csv'"),
    ("{type: csv, columns: [id, customer]}", "{columns: [id]}", "spec.config.format.type", "is missing", "csv, jsonl or avro"),
    ("columns: [id, customer]", "colums: [id]", "spec.config.format.colums", "unknown field", "did you mean 'columns'?"),
    ("columns: [id, customer]", "columns: id", "spec.config.format.columns", "a list is expected, found 'id'", "[a, b]"),
    ('url: "/bills/{{ event.id }}"', "url: /x, body: xml", "spec.config.body", "json, none or a mapping is expected", "json"),
    ('url: "/bills/{{ event.id }}"', "url: /x, body: {field: 5}", "spec.config.body.field", "text is expected", '"5"'),
    ('  config: {url: "/bills/{{ event.id }}"}\n', "", "spec.config.url", "the field 'url' is missing", "/orders/"),
    ("kind: Stream", "kind: [Stream]", "kind", "unknown kind (a list)", ""),
    ("apiVersion: trunkline/v1\nkind: Stream", "kind: Stream", "apiVersion", "is missing", "trunkline/v1"),
    ("metadata: {name: billing, owner: me}", "metadata: [billing]", "metadata", "a mapping is expected, found a list", ""),
    ('"https://api.example.com"', '"${BASE}"', "spec.config.base_url", "${BASE} is no reference", "write ${env:BASE}"),
    ('"https://api.example.com"', '"${ENV:B}"', "spec.config.base_url", "${ENV:B} is no reference", "write ${env:B}"),
    ('"https://api.example.com"', '"${evn:B}"', "spec.config.base_url", "there is no secret store 'evn'", "'env'"),
    ("base_url:", "auth: {type: baerer}, base_url:", "spec.config.auth.type", "oauth2 is expected, found 'baerer'", "'bearer'"),
    ("base_url:", 'auth: {type: bearer, token: "${vault:a#b}"}, base_url:', "spec.config.auth.token", "no secret store", "env, file"),
    ("base_url:", 'auth: {type: bearer, token: "${TOKEN}"}, base_url:', "spec.config.auth.token", "is no reference", "write ${env:TOKEN}"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "field", "message", "hint"), VALUES)
def test_a_value_that_is_none_is_said_with_its_field_what_was_found_and_what_to_write(
    old: str, new: str, field: str, message: str, hint: str
) -> None:
    text = broken(old, new)
    problem = next(one for one in judged(text).problems if one.field == field)
    assert problem.file == "shop.yaml"
    if "missing" not in message and "has no" not in message and "needs" not in message:
        first = SHOP[: SHOP.index(old)].count("\n") + 1
        assert first <= problem.line <= first + new.count("\n")
    assert message in problem.message
    assert hint in (problem.hint or "")


def test_no_message_speaks_of_the_machinery_and_none_is_a_traceback() -> None:
    texts = [broken(old, new) for old, new, *_ in [*SYNTAX, *VALUES]]
    for text in texts:
        for problem in judged(text).problems:
            said = f"{problem.message} {problem.hint}".replace(" None", "")
            assert not [word for word in PLUMBING if word in said], problem


WORDS = [
    "no",
    "~",
    "1e400",
    "010",
    "{a: b}",
    "'x y'",
    "ü",
    '"\\d"',
    "!x",
    "*a",
    "&a",
    "@x",
    "#x",
    "{{ x }}",
    "${env:X}",
    "[[",
    "|",
]


def mutated(text: str, chance: random.Random) -> str:
    """The text with one thing done to one of its lines that a hand may do by mistake."""
    lines = text.split("\n")
    at = chance.randrange(len(lines))
    line, column = lines[at], chance.randrange(len(lines[at]) + 1)
    match chance.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, chance.choice(lines))
        case 2:
            lines[at] = " " * chance.randrange(9) + line.lstrip()
        case 3:
            lines[at] = line[:column] + chance.choice("\t:{}[]'\"#&*!|>%@`,-?\u00a0\x07é") + line[column:]
        case 4:
            lines[at] = line[:column] + line[column + 1 :]
        case _:
            lines[at] = line.partition(": ")[0] + ": " + chance.choice(WORDS)
    return "\n".join(lines)


def test_whatever_a_hand_does_by_mistake_is_a_message_and_no_crash() -> None:
    chance = random.Random(2026)
    for _ in range(150):
        text = mutated(SHOP, chance)
        for problem in examine(gather_text(text, "shop.yaml"), schema_check=Schema).problems:
            said = f"{problem.message} {problem.hint}".replace(" None", "")
            assert not [word for word in PLUMBING if word in said], (problem, text)
            assert problem.code != "plugin.failed", (problem, text)
            assert 1 <= problem.line <= text.count("\n") + 1


@pytest.mark.parametrize(
    "text",
    [
        SHOP.replace("\n", "\r\n"),
        "\ufeff" + SHOP,
        broken("folder: out", "folder: 2026-01-31"),
        broken("folder: out", 'folder: "0755"'),
        broken("partitions: 2", "partitions: 1_0"),
        broken("filter: event.id > 3", "map: {set: {no: event.id}}"),
        broken("owner: me", "owner: 🚀 größer"),
        broken('"https://api.example.com"', '"${env:NOT_SET_ANYWHERE}"'),
        SHOP + "---\n",
    ],
    ids=["crlf", "bom", "date", "quoted octal", "underscore", "a key is its text", "unicode", "reference", "end"],
)
def test_what_is_no_fault_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(text, encoding="utf-8", newline="")
    assert examine(gather_files([tmp_path])).problems == []


def test_a_date_is_the_text_that_was_written() -> None:
    project = judged(broken("owner: me", "description: 2026-01-31")).project
    assert project.streams["billing"].metadata.description == "2026-01-31"


@pytest.mark.parametrize(
    ("content", "line", "message"),
    [
        (SHOP.encode("utf-16"), 1, "the file is UTF-16"),
        (SHOP.replace("owner: me", "owner: Müller").encode("latin-1"), 25, "not UTF-8: there is a byte 0xfc"),
    ],
)
def test_a_file_in_another_encoding_is_named_with_the_line(
    content: bytes, line: int, message: str, tmp_path: Path
) -> None:
    (tmp_path / "shop.yaml").write_bytes(content)
    (problem,) = examine(gather_files([tmp_path])).problems
    assert (problem.line, message in problem.message, problem.hint) == (line, True, "save it as UTF-8")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n---\n"])
def test_a_folder_without_a_manifest_is_wrong_input_and_not_a_valid_project(text: str, tmp_path: Path) -> None:
    (tmp_path / "shop.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match="there is no manifest in") as raised:
        gather_files([tmp_path])
    assert raised.value.code == "manifest.file"


def test_two_manifests_without_a_line_between_them_are_one_problem() -> None:
    problem = only(
        broken("---\napiVersion: trunkline/v1\nkind: Connection", "apiVersion: trunkline/v1\nkind: Connection")
    )
    assert "'apiVersion' occurs twice" in problem.message
    assert "put a line `---` between two manifests" in (problem.hint or "")


def test_a_file_that_can_not_be_read_is_the_only_problem_and_what_it_declares_is_not_missed(tmp_path: Path) -> None:
    first, _, rest = SHOP.partition("---\n")
    (tmp_path / "a.yaml").write_text(first.replace("  partitions", "\tpartitions"))
    (tmp_path / "b.yaml").write_text(rest)
    found = examine(gather_files([tmp_path]))
    assert [(one.file, one.code) for one in found.problems] == [(str(tmp_path / "a.yaml"), "manifest.yaml")]
    # The pipelines that need the topic can't run, and the others can.
    assert set(found.project.pipelines) == {"post"}


def test_hidden_files_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".github").mkdir()
    (tmp_path / ".github" / "ci.yaml").write_text("on: push\n")
    (tmp_path / "shop.yaml").write_text(SHOP)
    assert examine(gather_files([tmp_path])).problems == []


def test_a_secret_in_plain_text_is_never_repeated() -> None:
    text = broken("base_url:", "auth: {type: bearer, token: hunter2-hunter2}, base_url:")
    (problem,) = judged(text).problems
    assert "hunter2" not in str(problem)
    assert "${env:NAME}" in (problem.hint or "")
