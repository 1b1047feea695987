"""The registry's schemas: listing and comparing them; and proposing one from a sample file."""

from __future__ import annotations

import csv
import gzip
import itertools
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.jsontext import read_json
from trunkline.registry.client import RegistryClient
from trunkline.registry.compatibility import Incompatibility, Level, breaks
from trunkline.registry.infer import infer_schema
from trunkline.registry.schema import Schema

MAX_JSON_BYTES = 64 * 2**20
"""A JSON document is read whole; larger samples belong in JSON Lines."""


MAX_LINE = 2**20
"""Characters of a line of a sample."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A subject of the registry: how many versions it has, and the latest one's number, id and name."""

    subject: str
    versions: int
    latest: int
    id: int | None
    name: str
    compatibility: str

    def as_dict(self) -> dict[str, Any]:
        """The subject as data."""
        return asdict(self)


def subjects(registry: RegistryClient) -> list[Subject]:
    """Every subject that has a version."""
    found = []
    for subject in registry.subjects():
        versions = registry.versions(subject)
        if versions:
            latest = registry.latest(subject)
            found.append(Subject(subject, len(versions), versions[-1], latest.id, latest.name, registry.level(subject)))
    return found


def find_subject(registry: RegistryClient, name: str) -> str:
    """The subject of that name, else that of the topic's values. Raises `ConfigurationError` with the nearest one."""
    known = registry.subjects()
    chosen = name if name in known else f"{name}-value"
    if chosen not in known:
        raise ConfigurationError(
            f"the registry has no subject {name!r}", hint=did_you_mean(name, known), code="schema.unknown_subject"
        )
    return chosen


def breaks_of_files(new: Schema, old: Schema, level: Level) -> list[dict[str, Any]]:
    """Why `new` may not follow `old`, as data."""
    return [_data(None, one) for one in breaks(new.type, old.type, level)]


def breaks_of_subject(registry: RegistryClient, subject: str, new: Schema, level: str | None) -> list[dict[str, Any]]:
    """Why `new` may not follow the versions of a subject (or of a topic's values), as data."""
    return [_data(version, one) for version, one in registry.breaks(find_subject(registry, subject), new, level)]


def _data(version: int | None, one: Incompatibility) -> dict[str, Any]:
    return {"version": version, "kind": one.kind, "path": one.path, "message": one.message}


def propose_schema(file: Path, name: str | None, *, rows: int, delimiter: str, timestamps: bool) -> dict[str, Any]:
    """The Avro schema that the first `rows` records of a file fit. The kind of the file follows from its name.

    Raises `ConfigurationError` that names the file, and the line of a record that can't be read.
    """
    suffixes = [one.lower() for one in file.suffixes]
    kind = next((one for one in reversed(suffixes) if one != ".gz"), "")
    readers = {".csv": _rows, ".json": _document, ".jsonl": _lines, ".ndjson": _lines}
    if kind not in readers:
        raise ConfigurationError(
            f"{file.name} has no known kind",
            where=str(file),
            hint="name it .csv, .json, .jsonl or .ndjson, then .gz where it is gzip",
            code="schema.sample",
        )
    stem = file.name.split(".", 1)[0].replace("-", "_").replace(" ", "_")
    try:
        with _opened(file, compressed=suffixes[-1] == ".gz") as text:
            samples = itertools.islice(readers[kind](text, file, delimiter), rows)
            return infer_schema(samples, name or stem, timestamps=timestamps, text=kind == ".csv")
    except (OSError, UnicodeDecodeError, EOFError, csv.Error, zlib.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigurationError(
            f"the sample can't be read: {reason}", where=str(file), code="schema.sample"
        ) from error


def _opened(file: Path, *, compressed: bool) -> TextIO:
    if compressed:
        return cast("TextIO", gzip.open(file, "rt", encoding="utf-8-sig", newline=""))
    return file.open(encoding="utf-8-sig", newline="")


def _whole_lines(text: TextIO, file: Path) -> Iterator[str]:
    """The lines of a sample. Raises `ConfigurationError` for one so long, or so many blank ones, that this must be something else."""
    number = blank = 0
    while line := text.readline(MAX_LINE + 1):
        number += 1
        blank = 0 if line.strip() else blank + len(line)
        if blank > MAX_LINE:
            raise ConfigurationError(
                f"there are more than {MAX_LINE} characters of blank lines",
                where=f"{file}:{number}",
                code="schema.sample",
            )
        if len(line) > MAX_LINE:
            raise ConfigurationError(
                f"the line has more than {MAX_LINE} characters", where=f"{file}:{number}", code="schema.sample"
            )
        yield line


def _rows(text: TextIO, file: Path, delimiter: str) -> Iterator[dict[str, Any]]:
    if len(delimiter) != 1:
        raise ConfigurationError("one character is expected", where="--delimiter", code="option.delimiter")
    reader = csv.DictReader(_whole_lines(text, file), delimiter=delimiter)
    for row in reader:
        if None in row or None in row.values():
            raise ConfigurationError(
                f"the row has not the {len(reader.fieldnames or [])} cells of the header",
                where=f"{file}:{reader.line_num}",
                hint="is the delimiter right?",
                code="schema.sample",
            )
        yield row


def _lines(text: TextIO, file: Path, _delimiter: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_whole_lines(text, file), 1):
        if not line.strip():
            continue
        try:
            yield read_json(line)
        except ValueError as error:
            raise ConfigurationError(
                f"the line is no JSON: {error}", where=f"{file}:{number}", code="schema.sample"
            ) from error


def _document(text: TextIO, file: Path, _delimiter: str) -> Iterator[dict[str, Any]]:
    content = text.read(MAX_JSON_BYTES + 1)
    if len(content) > MAX_JSON_BYTES:
        raise ConfigurationError(
            "the file is larger than 64 MiB", where=str(file), hint="use JSON Lines", code="schema.sample"
        )
    try:
        data = read_json(content)
    except ValueError as error:
        raise ConfigurationError(f"the file is no JSON: {error}", where=str(file), code="schema.sample") from error
    yield from data if isinstance(data, list) else [data]
