"""One file for one batch: its name, its bytes, its manifest and the verdicts of its records.

The batch's name is the same whenever the same range is built again, and so are the bytes: a sink that finds the file already
there after a crash knows that its work is done. A file is written under a temporary name and renamed, so nobody ever sees a
part of one.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import string
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import field_validator

from trunkline.core.contracts import Batch
from trunkline.core.errors import FatalError, RejectedError
from trunkline.core.formats import CsvFormat, FileFormat, render
from trunkline.core.jsontext import read_json
from trunkline.core.settings import Settings, setting
from trunkline.core.verdicts import Dead, Ok, Retry, Verdict

MANIFEST_SUFFIX = ".manifest.json"
PART_SUFFIX = ".part"
_MAX_NAME = 200
"""UTF-8 bytes: most file systems take 255, and the manifest's and the temporary name are longer."""
_FORBIDDEN = frozenset('/\\:*?"<>|')
"""Separators, and what Windows servers refuse or read as a stream."""
_PLACEHOLDERS = ("range", "pipeline", "topic", "partition", "date", "extension")


class BatchFileSettings(Settings):
    """What all sinks that write files are asked."""

    name: str = setting(
        "{range}.{extension}",
        description="The name of a file, without a folder. `{range}` is required: pipeline, topic id, partition and range of "
        "offsets, the same when a range is written again. Also `{pipeline}`, `{topic}`, `{partition}`, `{date}` (UTC day of "
        "the first record) and `{extension}`.",
        examples=["flights-{date}-{range}.csv"],
    )
    format: FileFormat = setting(
        CsvFormat(), description="What the file looks like: csv, jsonl or avro, with options.", examples=["csv"]
    )
    manifest: bool = setting(
        False,
        description="Whether `<name>.manifest.json` follows each file, with its size, sha256, count of records and the time it "
        "was written. It is there only when the file is complete.",
    )

    @field_validator("name")
    @classmethod
    def _names_the_range(cls, template: str) -> str:
        sample = dict.fromkeys(_PLACEHOLDERS, "x")
        found = []
        for _text, placeholder, spec, conversion in string.Formatter().parse(template):
            if placeholder is None:
                continue
            if placeholder not in sample or spec or conversion:
                raise ValueError(f"{{{placeholder}}} is no placeholder: known are {', '.join(_PLACEHOLDERS)}")
            found.append(placeholder)
        if "range" not in found:
            raise ValueError("{range} is required, or one file would overwrite another")
        wrong = fault_of_name(template.format_map(sample))
        if wrong:
            raise ValueError(wrong)
        return template


def fault_of_name(name: str) -> str | None:
    """Why `name` can't be the base name of a file, or None where it can: no folder, no hidden file, nothing unprintable."""
    shown = name[:60].encode("ascii", "backslashreplace").decode()
    if not name or name.strip() != name:
        return f"'{shown}' begins or ends with a blank, or is empty"
    if name[0] in ".-~" or name[-1] == ".":
        return f"'{shown}' begins with a dot, a dash or a tilde, or ends with a dot"
    if not name.isprintable() or _FORBIDDEN & set(name):
        return f"'{shown}' has a character that has no place in a file name"
    if len(name.encode("utf-8")) > _MAX_NAME:
        return f"'{shown}…' is longer than {_MAX_NAME} bytes"
    if name.endswith((MANIFEST_SUFFIX, PART_SUFFIX)):
        return f"'{shown}' ends as a manifest or a temporary file does"
    return None


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A batch as a file. `rows` records are in it; `rejected` says by index which are not."""

    name: str
    content: bytes
    sha256: str
    rows: int
    total: int
    rejected: dict[int, RejectedError]

    def manifest(self, written: datetime) -> bytes:
        """The manifest file. `written` is the only part that differs when the same range is written again."""
        facts = {
            "name": self.name,
            "size": len(self.content),
            "sha256": self.sha256,
            "count": self.rows,
            "written": written.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        }
        return json.dumps(facts, ensure_ascii=False, indent=2).encode() + b"\n"

    def is_described_by(self, manifest: bytes) -> bool:
        """Whether a manifest that was found belongs to this very content."""
        try:
            found = read_json(manifest)
        except ValueError:
            return False
        wanted = {"name": self.name, "size": len(self.content), "sha256": self.sha256, "count": self.rows}
        return isinstance(found, dict) and all(found.get(field) == value for field, value in wanted.items())

    def verdicts(self, path: str) -> list[Verdict]:
        """The file is in place: each record is at `path#row`, rows counting from 1 without the header, or dead."""
        found: list[Verdict] = []
        row = 0
        for index in range(self.total):
            wrong = self.rejected.get(index)
            if wrong is None:
                row += 1
                found.append(Ok(f"{path}#{row}"))
            else:
                found.append(Dead(wrong.message, code=wrong.code))
        return found

    def retry(self, reason: str, after: float | None = None, code: str = "file.unwritable") -> list[Verdict]:
        """The file is not in place. Also records that can't be written are kept: the range must be built again as it is."""
        return [Retry(reason, after, code)] * self.total


def build_file(batch: Batch, settings: BatchFileSettings, pipeline: str) -> BatchFile:
    """The file of a batch. Works for a while on large ones: call it in a thread.

    Raises `FatalError` (`file.bad_name`) when the template gives something that is no base name.
    """
    name = file_name(batch, settings, pipeline)
    rendered = render(batch.events, settings.format, batch.name)
    digest = hashlib.sha256(rendered.content).hexdigest()
    return BatchFile(name, rendered.content, digest, rendered.rows, len(batch.events), rendered.rejected)


def file_name(batch: Batch, settings: BatchFileSettings, pipeline: str) -> str:
    """The name of a batch's file. Raises `FatalError` (`file.bad_name`) when it is no base name."""
    first = batch.events[0]
    name = settings.name.format_map(
        {
            "range": batch.name,
            "pipeline": pipeline,
            "topic": first.topic,
            "partition": str(first.partition),
            "date": _day(first.timestamp),
            "extension": settings.format.type,
        }
    )
    wrong = fault_of_name(name) if batch.name else "the batch has no name"
    if wrong:
        raise FatalError(
            f"no file can be named so: {wrong}", hint="change `name` in the sink's config", code="file.bad_name"
        )
    return name


def _day(milliseconds: int) -> str:
    try:
        return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d")
    except (ValueError, OverflowError, OSError):
        # Producers may set any number; one beyond year 9999 must not stop a sink whose template may not even ask for it.
        return "undated"


def temporary_name(name: str) -> str:
    """A hidden name for the time of writing, another one at each call.

    Two writers of one range (a fenced worker that does not know it yet, a server that still works off a lost connection) must
    never meet in one file: the rename of the one would publish the half-written file of the other.
    """
    return f".{name}.{secrets.token_hex(4)}{PART_SUFFIX}"


def is_leftover(found: str, name: str) -> bool:
    """Whether `found` is a temporary file that an earlier attempt at `name` left behind."""
    return re.fullmatch(rf"\.{re.escape(name)}\.[0-9a-f]{{8}}{re.escape(PART_SUFFIX)}", found) is not None


def leftovers(found: Sequence[str], name: str) -> list[str]:
    """Those of the names `found` in a folder that earlier attempts at `name` or at its manifest left behind."""
    return [other for other in found if is_leftover(other, name) or is_leftover(other, name + MANIFEST_SUFFIX)]
