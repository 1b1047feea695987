"""The settings of the `file` source: which files, how they are read, and what becomes of them."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import Literal

from pydantic import field_validator, model_validator

from trunkline.core.settings import Duration, Settings, Size, setting

# Records are cut out of bytes, so a line feed and a quote must be one byte that occurs in no other character.
_CUTTABLE = re.compile(r"utf-8|ascii|iso8859-\d+|cp125\d|cp437|cp850|koi8-[ru]|mac-roman")


class CsvOptions(Settings):
    """The dialect of a CSV file. The default is RFC 4180 with a header."""

    delimiter: str = setting(",", description="The character between fields.", min_length=1, max_length=1)
    quotechar: str | None = setting(
        '"', description="The character around fields that hold delimiters or line ends; null for none.", max_length=1
    )
    escapechar: str | None = setting(
        None, description="The character that takes away the next one's meaning.", max_length=1
    )
    header: bool = setting(True, description="Whether the first row names the columns.")
    columns: list[str] | None = setting(
        None,
        description="The columns' names, in place of the header's or where there is none.",
        examples=[["carrier", "flight"]],
        min_length=1,
    )
    skip_rows: int = setting(
        0, description="How many lines before the header (or the data) are passed over.", ge=0, le=1000
    )
    null_values: list[str] = setting(
        [""], description="Field contents that mean null, compared exactly.", examples=[["NA", ""]]
    )
    extra_columns: Literal["refuse", "ignore"] = setting(
        "refuse", description="What becomes of columns that the topic's schema does not have."
    )

    @field_validator("delimiter", "quotechar", "escapechar")
    @classmethod
    def _is_no_line_end(cls, value: str | None) -> str | None:
        if value is not None and (not value.isascii() or value in "\r\n\0" or not value):
            raise ValueError("one ASCII character is expected that is no line end")
        return value

    @model_validator(mode="after")
    def _columns_are_known(self) -> CsvOptions:
        if not self.header and self.columns is None:
            raise ValueError("with `header: false`, `columns` must name the columns")
        if self.columns is not None and len(set(self.columns)) != len(self.columns):
            raise ValueError("`columns` names one column twice")
        return self


class FileSettings(Settings):
    """A file, or the files of a folder."""

    path: str = setting(
        description="The file; or, with `pattern`, the folder.",
        examples=["/var/spool/orders"],
        min_length=1,
        references=True,
    )
    pattern: str | None = setting(
        None,
        description="Which names in the folder are read, as a glob. Without it `path` is one file.",
        examples=["*.csv"],
    )
    ignore: list[str] = setting(
        [".*", "*.tmp", "*.part", "*.partial"],
        description="Names that are never read, as globs: files still being written.",
    )
    links: Literal["inside", "follow"] = setting(
        "inside",
        description="Symbolic links. `inside`: one counts as the file that it leads to, where that lies in the folder itself. `follow`: "
        "wherever it lies. Never out of the folders in `TRUNKLINE_FILE_ROOTS`, where the worker's operator set that.",
    )
    format: Literal["csv", "jsonl", "json"] = setting(
        description="CSV rows, JSON Lines, or one JSON document (an object, or a list of objects)."
    )
    csv: CsvOptions = setting(CsvOptions(), description="The CSV dialect.")
    encoding: str = setting(
        "utf-8", description="The text encoding. A byte order mark of UTF-8 is passed over.", examples=["cp1252"]
    )
    compression: Literal["auto", "gzip", "none"] = setting(
        "auto", description="`auto`: gzip where the name ends in .gz."
    )
    watch: bool = setting(
        True, description="Whether to wait for more. Without, the source ends when everything is read."
    )
    poll_interval: Duration | None = setting(
        None,
        description="How often to look for more. Default: 1s, and 2s after 10 seconds without any.",
        examples=["1s"],
        gt=0,
    )
    settle: Duration | None = setting(
        None,
        description="How long a file must be unchanged before it is read. Default: 2s for JSON and gzip, else 0 for growing files.",
        examples=["5s"],
    )
    idle: Duration = setting(
        10.0,
        description="A file that was not changed for this long is complete: `final_line` and `when_done` apply.",
        examples=["30s"],
    )
    final_line: Literal["emit", "wait"] = setting(
        "emit", description="A last line without a line end: taken once the file is idle, or waited for."
    )
    when_done: Literal["leave", "move", "delete"] = setting(
        "leave", description="What becomes of a complete file after Kafka acknowledged all of it."
    )
    move_to: str | None = setting(
        None,
        description="The folder that done files are moved to.",
        examples=["/var/spool/orders/done"],
        references=True,
    )
    batch: int = setting(5000, description="The most rows of one poll.", ge=1, le=50_000)
    max_line: Size = setting(
        2**20, description="The longest row; longer ones are rejected.", examples=["1 MiB"], ge=1024, le=64 * 2**20
    )
    max_document: Size = setting(
        16 * 2**20, description="The largest JSON document, decompressed.", ge=1, le=256 * 2**20
    )

    @field_validator("encoding")
    @classmethod
    def _can_be_cut(cls, value: str) -> str:
        try:
            name = codecs.lookup(value).name
        except LookupError:
            raise ValueError(f"no encoding is called {value!r}") from None
        name = "utf-8" if name == "utf-8-sig" else name
        if not _CUTTABLE.fullmatch(name):
            raise ValueError(f"{value!r} can't be read row by row: convert the file to UTF-8 first")
        return name

    @field_validator("pattern")
    @classmethod
    def _is_a_name(cls, value: str | None) -> str | None:
        if value is not None and ("/" in value or not value):
            raise ValueError("`pattern` matches names in one folder: it has no slash")
        return value

    @model_validator(mode="after")
    def _done_files_have_a_place(self) -> FileSettings:
        if (self.when_done == "move") != (self.move_to is not None):
            raise ValueError("`when_done: move` and `move_to` go together")
        if self.move_to is not None:
            folder = Path(self.path) if self.pattern is not None else Path(self.path).parent
            if Path(self.move_to).absolute() == folder.absolute():
                raise ValueError("`move_to` is the folder that is read: done files would be read again")
        return self

    @property
    def settle_seconds(self) -> float:
        """How long a file must be unchanged before it is read, in seconds, the default worked out."""
        if self.settle is not None:
            return self.settle
        return 2.0 if self.format == "json" or self.compression == "gzip" else 0.0
