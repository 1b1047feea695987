"""`trunkline schema infer` and `check` on files, and kcat's format of `topic tail`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from trunkline.cli.kcat import formatted
from trunkline.cli.main import app
from trunkline.core.errors import ConfigurationError


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["schema", *arguments])


def fields(result: Result) -> dict[str, object]:
    assert result.exit_code == 0, result.stderr
    return {field["name"]: field["type"] for field in json.loads(result.stdout)["fields"]}


def test_csv_gives_numbers_texts_and_null(tmp_path: Path) -> None:
    sample = tmp_path / "late-flights.csv"
    sample.write_text("carrier,flight,dep_delay\nUA,1545,2.5\nAA,1141,NA\n", encoding="utf-8")
    result = call("infer", str(sample))
    assert fields(result) == {"carrier": "string", "flight": "long", "dep_delay": ["null", "double"]}
    assert json.loads(result.stdout)["name"] == "late_flights"


def test_gzipped_json_lines_and_a_json_list_give_the_same_schema(tmp_path: Path) -> None:
    rows = [{"id": 1, "tags": ["a"]}, {"id": 2, "tags": [], "note": "x"}]
    lines, document = tmp_path / "rows.jsonl.gz", tmp_path / "rows.json"
    lines.write_bytes(gzip.compress("\n".join(json.dumps(row) for row in rows).encode()))
    document.write_text(json.dumps(rows), encoding="utf-8")
    expected = {"id": "long", "tags": {"type": "array", "items": "string"}, "note": ["null", "string"]}
    assert fields(call("infer", str(lines))) == fields(call("infer", str(document))) == expected


def test_a_schema_file_is_written_once_and_only_replaced_when_told(tmp_path: Path) -> None:
    sample, target = tmp_path / "a.csv", tmp_path / "a.avsc"
    sample.write_text("id\n1\n", encoding="utf-8")
    assert call("infer", str(sample), "--name", "shop.Order", "--out", str(target)).exit_code == 0
    assert json.loads(target.read_text(encoding="utf-8"))["name"] == "shop.Order"
    again = call("infer", str(sample), "--out", str(target))
    assert again.exit_code == 2
    assert "--force replaces it" in again.stderr
    assert call("infer", str(sample), "--out", str(target), "--force").exit_code == 0


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.xml", "<a/>", "no known kind"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "a.jsonl:2"),
        ("a.csv", "a,b\n1,2\n1,2,3\n", "a.csv:3"),
        ("a.csv", "a,b\n", "no sample at all"),
        ("a.json", "[", "no JSON"),
        ("a.csv.gz", "not gzip", "can't be read"),
    ],
)
def test_a_sample_that_cant_be_read_is_named_with_its_line(tmp_path: Path, name: str, content: str, says: str) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8")
    result = call("infer", str(tmp_path / name))
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\xff" * 40, "can't be read"),
        (gzip.compress(b'{"a": 1}\n' + b"\n" * 3_000_000, mtime=0), "blank lines"),
    ],
    ids=["damaged", "nothing but blank lines"],
)
def test_a_compressed_sample_that_is_damaged_or_endless_is_refused(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(content)
    result = call("infer", str(tmp_path / "a.jsonl.gz"))
    assert result.exit_code == 2
    assert says in result.stderr


def avsc(folder: Path, name: str, *columns: dict[str, object]) -> str:
    path = folder / name
    path.write_text(json.dumps({"type": "record", "name": "Order", "fields": columns}), encoding="utf-8")
    return str(path)


def test_a_new_field_with_a_default_may_follow_and_one_without_may_not(tmp_path: Path) -> None:
    old = avsc(tmp_path, "old.avsc", {"name": "id", "type": "long"})
    good = avsc(
        tmp_path, "good.avsc", {"name": "id", "type": "long"}, {"name": "note", "type": "string", "default": ""}
    )
    bad = avsc(tmp_path, "bad.avsc", {"name": "id", "type": "long"}, {"name": "note", "type": "string"})
    assert call("check", good, "--against", old).exit_code == 0
    result = call("check", bad, "--against", old)
    assert result.exit_code == 1
    assert "READER_FIELD_MISSING_DEFAULT_VALUE at /fields/1" in result.stdout
    assert "error[schema.incompatible]" in result.stderr


def test_the_level_decides_the_direction_of_the_check(tmp_path: Path) -> None:
    old = avsc(tmp_path, "old.avsc", {"name": "id", "type": "long"}, {"name": "note", "type": "string"})
    new = avsc(tmp_path, "new.avsc", {"name": "id", "type": "long"})
    assert call("check", new, "--against", old, "--level", "backward").exit_code == 0
    assert call("check", new, "--against", old, "--level", "FORWARD").exit_code == 1
    unknown = call("check", new, "--against", old, "--level", "BACKWARDS")
    assert unknown.exit_code == 2
    assert "did you mean 'BACKWARD'?" in unknown.stderr


def test_check_wants_one_thing_to_compare_with(tmp_path: Path) -> None:
    old = avsc(tmp_path, "old.avsc", {"name": "id", "type": "long"})
    assert call("check", old).exit_code == 2


RECORD = {
    "topic": "orders",
    "partition": 3,
    "offset": 42,
    "timestamp": 1700000000000,
    "key": "k",
    "headers": {"a": "1", "b": "2"},
    "value": {"id": 1},
}


def test_the_format_has_kcats_placeholders_and_escapes() -> None:
    assert formatted(RECORD, r"%t[%p]@%o\t%k %s %h %T %K %S %%\n") == (
        'orders[3]@42\tk {"id":1} a=1,b=2 1700000000000 1 8 %\n'
    )


@pytest.mark.parametrize("form", ["%x", "100%", "%t %q"])
def test_a_placeholder_that_means_nothing_is_refused(form: str) -> None:
    with pytest.raises(ConfigurationError, match="means nothing"):
        formatted(RECORD, form)
