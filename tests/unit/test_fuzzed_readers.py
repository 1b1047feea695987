"""Whatever comes in: a value, a refusal in words or a dead letter, at a bounded cost."""

from __future__ import annotations

import gzip
import io
import os
import tempfile
from pathlib import Path

import pytest
import structlog
from fuzzing import FUZZ, LONGEST, is_short
from fuzzing_corpus import AVRO, DOCUMENTS
from hypothesis import example, given
from hypothesis import strategies as st

from connectors.file.settings import FileSettings
from connectors.file.source import FileSource
from connectors.file.streams import GzipStream
from connectors.http_poll.answer import line_items
from connectors.webhook.bodies import TooMuchError, UnreadableError, read_body
from tests.steps import bounded_steps
from trunkline.core.contracts import PluginContext
from trunkline.core.errors import RejectedError
from trunkline.core.http import HttpResponse
from trunkline.core.jsontext import read_json
from trunkline.registry.codec import Decoder, Encoder
from trunkline.registry.schema import Schema
from trunkline.registry.wire import prefix

ORDER = Schema(
    {
        "type": "record",
        "name": "O",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "n", "type": ["null", "long"]},
            {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["A", "B"]}},
            {"name": "l", "type": {"type": "array", "items": ["null", "string", "int"]}},
            {"name": "m", "type": {"type": "map", "values": "double"}},
        ],
    },
    id=1,
)
GOOD = Encoder(ORDER).encode({"id": "abc", "n": 7, "e": "B", "l": ["x", None, 3], "m": {"k": 1.5}})


class Shelf:
    """The one schema."""

    def by_id(self, _schema_id: int) -> Schema:
        return ORDER

    latest = register = by_id


@given(st.data())
@FUZZ
def test_a_value_is_decoded_to_what_can_be_encoded_or_is_rejected(data: st.DataObject) -> None:
    body = bytearray(GOOD[5:])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    _decoded(bytes(body))


@pytest.mark.parametrize("body", AVRO)
def test_values_that_were_found(body: bytes) -> None:
    _decoded(body)


def _decoded(body: bytes) -> None:
    for trust in ("internal", "external"):
        with bounded_steps(200_000):
            try:
                schema, datum = Decoder(Shelf(), trust=trust).decode(prefix(1) + body)  # type: ignore[arg-type]
            except RejectedError as error:
                is_short(error)
            else:
                # What was read is a datum of the schema: none of its indexes meant something else than it says.
                Encoder(schema).encode(datum)


INPUT = st.binary(max_size=60) | st.lists(
    st.sampled_from(
        [
            b'{"a":',
            b"1",
            b"[",
            b"]",
            b"}",
            b'"x"',
            b",",
            b"\n",
            b'"',
            b"\\ud800",
            b"1e999",
            b"9" * 30,
            b"null",
            b"\xff",
            b"\x00",
            b"id;n",
            b"\r",
            b"a,b\n",
            b"1,2\n",
            b"''",
            b"\xef\xbb\xbf",
            b'{"a":' * 300,
            b"[" * 1100,
        ]
    ),
    max_size=12,
).map(b"".join)


@given(INPUT, st.sampled_from(["csv", "jsonl", "json"]), st.booleans(), st.integers(0, 30))
@example(b'{"a":' * 300 + b"1" + b"}" * 300, "json", False, 0)
@FUZZ
async def test_a_file_becomes_events_and_dead_letters_and_comes_to_its_end(
    data: bytes, form: str, zipped: bool, cut: int
) -> None:
    if zipped:
        data = gzip.compress(data, mtime=0)
        data = data[: len(data) - cut] if cut % 2 else data + data[:cut]
    await _read(data, form, zipped)


@pytest.mark.parametrize(("data", "form"), DOCUMENTS)
async def test_files_that_were_found(data: bytes, form: str) -> None:
    await _read(data, form, zipped=False)


async def _read(data: bytes, form: str, zipped: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "in").write_bytes(data)
        config = {
            "path": folder,
            "pattern": "in",
            "format": form,
            "watch": False,
            "compression": "gzip" if zipped else "none",
        }
        source = FileSource(FileSettings.model_validate(config))
        await source.open(PluginContext("ns", "fuzz", Path(folder), structlog.get_logger()))
        position = None
        with bounded_steps(300_000):
            for _ in range(50):
                batch = await source.poll("0", position)
                position = batch.position
                assert all(isinstance(event.value, dict) for event in batch.events)
                assert all(0 < len(letter.reason) < LONGEST for letter in batch.rejected)
                if batch.finished:
                    break
            else:
                raise AssertionError("it never comes to its end")
        await source.close()


@given(
    INPUT,
    st.sampled_from(
        [
            "application/json",
            "application/x-www-form-urlencoded",
            "text/plain; charset=latin-1",
            "",
            "x/y; charset=utf-7",
        ]
    ),
)
@FUZZ
def test_a_body_is_read_or_refused(data: bytes, content_type: str) -> None:
    with bounded_steps(200_000):
        try:
            read_body(data, {"content-type": content_type}, max_depth=64, max_elements=1000)
        except (UnreadableError, TooMuchError) as error:
            is_short(error)
        try:
            read_json(data)
        except ValueError as error:
            is_short(error)
        line_items(HttpResponse(200, {}, data, request="GET /"))


def test_a_small_file_that_unpacks_to_a_huge_one_is_not_held_in_memory() -> None:
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        for _ in range(64):
            file.write(b"\0" * 2**20)
    with tempfile.TemporaryFile() as bomb:
        bomb.write(packed.getvalue())
        bomb.flush()
        stream = GzipStream(os.dup(bomb.fileno()))
        stream.fill(1000)
        assert len(stream.buffer) <= 256 * 1024
        stream.close()
