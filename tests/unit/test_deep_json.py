"""JSON that is nested deeper than it can be written again: a dead letter or a refusal with the reason, wherever it comes in."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.file.settings import FileSettings
from connectors.file.source import FileSource
from connectors.http_poll.items import ItemReader, item_digest
from connectors.http_poll.position import Standing, Sweep
from connectors.http_poll.settings import HttpPollSettings
from trunkline.bus.names import Names
from trunkline.bus.source.publish import Publisher
from trunkline.bus.worker.applied import _manifest_in
from trunkline.cli.commands.dlq import _document
from trunkline.core.batchfile import BatchFile
from trunkline.core.casting import compile_caster
from trunkline.core.contracts import PluginContext, SourceEvent
from trunkline.core.errors import ConfigurationError
from trunkline.core.jsonable import note_bytes, to_json_bytes
from trunkline.core.jsontext import any_json_bytes, is_deeper, read_json
from trunkline.core.manifests.models import Target
from trunkline.core.routing import compile_routes
from trunkline.registry.schema import Schema
from trunkline.registry.state import State

DEPTHS = [256, 260, 1000]
RECORD = {"type": "record", "name": "R", "fields": [{"name": "a", "type": "string"}]}


def nested(levels: int) -> str:
    """Objects and lists in turn, `levels` in all."""
    return '{"a":[' * (levels // 2) + "1" + "]}" * (levels // 2)


def chain(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip


@given(VALUES)
@settings(max_examples=60, deadline=None)
def test_json_of_any_value_is_the_json_of_one_that_can_be_written(value: Any) -> None:
    try:
        expected = orjson.loads(orjson.dumps(value))
    except TypeError:  # lone surrogates
        orjson.loads(any_json_bytes(value))
    else:
        assert orjson.loads(any_json_bytes(value)) == expected


@pytest.mark.parametrize("levels", [*DEPTHS, 100_000])
def test_json_of_any_value_has_all_its_levels(levels: int) -> None:
    assert any_json_bytes(chain(levels)) == b'{"a":' * levels + b"1" + b"}" * levels


def test_json_of_any_value_writes_what_has_no_json_form() -> None:
    value = {1: [2**200, b"\x00", float("nan"), "\ud800", datetime(2024, 1, 2, tzinfo=UTC), {2}, 10**5000]}
    assert orjson.loads(any_json_bytes(value))["1"][1:6] == [
        "AA==",
        None,
        "\\ud800",
        "2024-01-02T00:00:00+00:00",
        "{2}",
    ]
    assert str(2**200).encode() in any_json_bytes(value)


@pytest.mark.parametrize("levels", [201, *DEPTHS, 100_000])
def test_text_of_others_is_read_to_a_depth_that_all_code_can_follow(levels: int) -> None:
    with pytest.raises(ValueError, match="nested deeper than 200 levels"):
        read_json("[" * levels + "]" * levels)
    assert is_deeper(read_json("[" * 200 + "]" * 200), 199)


def test_a_number_of_too_many_digits_is_said_in_words() -> None:
    with pytest.raises(ValueError, match="a number has more than 4,300 digits"):
        read_json("9" * 5000)


@pytest.mark.parametrize("levels", DEPTHS)
async def test_a_deep_item_of_a_document_is_a_dead_letter_and_those_around_it_go_on(
    tmp_path: Path, levels: int
) -> None:
    (tmp_path / "items.json").write_text(f'[{{"n": 1}}, {nested(levels)}, {{"n": 2}}]')
    source = FileSource(FileSettings(path=str(tmp_path), pattern="*.json", format="json", watch=False))
    await source.open(PluginContext("ns", "shop", tmp_path, structlog.get_logger()))
    batch = await source.poll("0", None)
    await source.close()
    assert [event.value for event in batch.events] == [{"n": 1}, {"n": 2}]
    [letter] = batch.rejected
    assert letter.raw == nested(levels).encode()
    assert letter.place == "items.json:[1]"
    assert "nested deeper than 254 levels" in letter.reason


async def test_a_document_that_is_deeper_than_the_parser_goes_is_one_dead_letter(tmp_path: Path) -> None:
    (tmp_path / "items.json").write_text(nested(200_000))
    source = FileSource(FileSettings(path=str(tmp_path), pattern="*.json", format="json", watch=False))
    await source.open(PluginContext("ns", "shop", tmp_path, structlog.get_logger()))
    batch = await source.poll("0", None)
    await source.close()
    assert batch.events == []
    assert ["depth limit exceeded" in one.reason for one in batch.rejected] == [True]


@pytest.mark.parametrize("levels", DEPTHS)
@pytest.mark.parametrize("emit", ["all", "changed"])
def test_a_deep_item_of_an_answer_is_a_dead_letter_of_its_own_bytes_alone(levels: int, emit: str) -> None:
    reader = ItemReader(HttpPollSettings.model_validate({"path": "/x", "interval": "1s", "emit": emit}))
    items = [{"n": 1}, chain(levels), {"n": 2}]
    events, rejected = reader.read(items, Standing(), Sweep(), "GET /x")
    assert [event.value for event in events] == [{"n": 1}, {"n": 2}]
    assert [one.raw for one in rejected] == [any_json_bytes(chain(levels))]
    assert item_digest(chain(levels)) != item_digest(chain(levels - 1))


def publisher() -> Publisher:
    class Encoding:
        def encode(self, datum: Any) -> bytes:
            return to_json_bytes(datum)

    return Publisher(
        Names("acme"), "shop", "w1", "file", compile_routes([Target(topic="orders")], RECORD, "spec"),
        lambda _topic: Encoding(), lambda _topic: compile_caster(RECORD, extra_columns="ignore", values="json"), {"orders": 10**6},
    )  # type: ignore[arg-type, return-value]  # fmt: skip


@pytest.mark.parametrize("levels", [*DEPTHS, 20_000])
def test_a_deep_value_is_quarantined_whether_or_not_its_bytes_are_known(levels: int) -> None:
    found = publisher().publish(SourceEvent(chain(levels)))
    assert found.outcome == "dead"
    assert found.outputs[0].value == any_json_bytes(chain(levels))


@pytest.mark.parametrize(
    "moment",
    [
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
        datetime(9999, 12, 31, 23, tzinfo=timezone(-timedelta(hours=12))),
    ],
)
def test_a_time_beyond_the_calendar_is_quarantined(moment: datetime) -> None:
    found = publisher().publish(SourceEvent({"a": "x"}, time=moment))
    assert found.outcome == "dead"
    assert "in UTC" in (found.detail or "")


@pytest.mark.parametrize("levels", [*DEPTHS, 20_000])
def test_notes_are_written_whatever_is_in_them(levels: int) -> None:
    assert note_bytes({"detail": chain(levels)}) == b'{"detail":' + any_json_bytes(chain(levels)) + b"}"


@pytest.mark.parametrize("levels", [255, 1000, 5000])
def test_a_planted_manifest_of_a_file_is_none_of_ours(levels: int) -> None:
    file = BatchFile("a.csv", b"", "", 0, 0, {})
    assert not file.is_described_by(("[" * levels + "]" * levels).encode())


@pytest.mark.parametrize("levels", [*DEPTHS, 5000])
def test_schemas_and_manifests_that_are_too_deep_are_refused(levels: int) -> None:
    with pytest.raises(ConfigurationError):
        Schema(nested(levels))
    found = _manifest_in("Sink/a", b'{"v":1,"manifest":' + nested(min(levels, 1000)).encode() + b"}")
    assert found["apiVersion"] != "trunkline/v1"
    state = State()
    state.apply(nested(levels).encode(), b"{}")
    assert state.unreadable == 1


@pytest.mark.parametrize("text", [nested(256), nested(5000), '{"n": 100000000000000000000000000}', '{"n": "\\ud800"}'])
def test_an_edit_that_no_job_can_hold_is_refused_before_there_is_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "edit.json").write_text(text)
    with pytest.raises(ConfigurationError) as refused:
        _document(str(tmp_path / "edit.json"))
    assert refused.value.code == "option.file"


def test_the_depth_of_the_caller_changes_nothing() -> None:
    def called(levels: int) -> Any:
        return called(levels - 1) if levels else read_json("[" * 200 + "]" * 200)

    assert json.dumps(called(sys.getrecursionlimit() - 400)) == "[" * 200 + "]" * 200
