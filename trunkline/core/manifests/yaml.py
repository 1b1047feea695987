"""Reading YAML with the line of every value, and refusing what only surprises: aliases, tags, duplicate keys, numbers in base 60.

The rules are those of YAML 1.1, as people's editors and other tools know them, except that dates stay texts, since manifests are data
that JSON can hold. What a plain word means besides itself (`no` is false) is remembered, so that a message can name it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from trunkline.core.errors import ConfigurationError
from trunkline.core.manifests.documents import YAML_PROBLEM, Document
from trunkline.core.manifests.problems import Path_, Problem, spelled
from trunkline.core.manifests.syntax import explained

MAX_BYTES = 4 * 2**20
MAX_DEPTH = 64
MAX_DOCUMENTS = 10_000
"""Of one file. Each takes some 0.1 ms and 8 KB to be read, and more to be judged."""
MAX_KEYS = 10_000
"""Of one mapping: each that no model knows is compared with all names that one knows."""
MAX_PROBLEMS = 1_000
"""Of one file: nobody reads more, and each says what it found and what to do."""
MAX_KEY = 1_000
"""Characters of a key: a field's name, or the key of a map."""
MAX_NUMBER = 100
"""Characters of a number."""
# libyaml's parser is ten times as fast as the one in Python: with that, a file within the limit of size would take a minute.
_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# YAML 1.1's own expressions (https://yaml.org/type/), as PyYAML has them; numbers may hold underscores.
_BOOLEANS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9_]*)")
_BASED = re.compile(r"[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o[0-7_]+)")
_OCTAL = re.compile(r"[-+]?0[0-7_]+")
_FLOAT = re.compile(r"[-+]?([0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|\.[0-9][0-9_]*([eE][-+][0-9]+)?)")
_BASE_60 = re.compile(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_QUOTED = "put it in quotes if it is a text"
_MANIFEST_KEYS = frozenset({"apiVersion", "kind", "metadata", "spec"})


class _TooManyError(Exception):
    """The file has too many documents, of which one begins in this line."""

    def __init__(self, line: int) -> None:
        super().__init__(line)
        self.line = line


class _TooWideError(_TooManyError):
    """A mapping has too many keys, of which one stands in this line."""


def read_documents(text: str, file: str) -> tuple[list[Document], list[Problem]]:
    """The documents of a YAML text, and what kept more of them from being read: those before the fault are there."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        return [], [Problem(file, 1, "", f"the file is larger than {MAX_BYTES // 2**20} MiB", "split it", YAML_PROBLEM)]
    documents: list[Document] = []
    reader = _Reader(text, file)
    try:
        documents += reader.documents()
    except yaml.MarkedYAMLError as error:
        line, message, hint = explained(error, reader.source)
        return reader.done, [Problem(file, line, "", message, hint, YAML_PROBLEM)]
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, text.find(chr(error.character))) + 1 if isinstance(error.character, int) else 1
        code = f"U+{error.character:04X}" if isinstance(error.character, int) else str(error.character)
        message = f"there is a control character ({code}) that YAML does not allow"
        return reader.done, [Problem(file, line, "", message, "delete it", YAML_PROBLEM)]
    except _TooWideError as error:
        message = f"a mapping has more than {MAX_KEYS:,} keys; nothing is read from here on"
        return reader.done, [Problem(file, error.line, "", message, "make it smaller", YAML_PROBLEM)]
    except _TooManyError as error:
        message = f"the file has more than {MAX_DOCUMENTS:,} documents; those from here on are not read"
        return reader.done, [Problem(file, error.line, "", message, "split the file", YAML_PROBLEM)]
    except _TooWrongError as error:
        last = error.problems[-1].line
        message = f"the file has {MAX_PROBLEMS:,} problems up to here; nothing is read from here on"
        return reader.done, [*error.problems, Problem(file, last, "", message, "mend these first", YAML_PROBLEM)]
    except (yaml.YAMLError, UnicodeError) as error:
        return reader.done, [Problem(file, 1, "", f"this is no YAML: {str(error)[:200]}", None, YAML_PROBLEM)]
    return documents, []


def read_files(paths: list[Path]) -> tuple[list[Document], list[Problem]]:
    """The documents of all `.yaml` and `.yml` files at `paths`, and what kept others from being read.

    Folders are read with their subfolders, sorted by name; hidden files and folders are passed over. Raises `ConfigurationError`
    (`manifest.file`) for a path that does not exist, and where there is no manifest at all.
    """
    documents: list[Document] = []
    problems: list[Problem] = []
    for path in paths:
        for file in _files_at(path):
            text = _text_of(file)
            if isinstance(text, Problem):
                problems.append(text)
                continue
            found, wrong = read_documents(text, str(file))
            documents += found
            problems += wrong
    if not documents and not problems:
        raise ConfigurationError(
            f"there is no manifest in {', '.join(map(str, paths))}",
            hint="name a manifest file, or a folder of .yaml files that are not empty",
            code="manifest.file",
        )
    return documents, problems


def _files_at(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(
            found
            for found in path.rglob("*")
            if found.suffix in {".yaml", ".yml"}
            and not any(part.startswith(".") for part in found.relative_to(path).parts)
            and found.is_file()
        )
    if not path.exists():
        raise ConfigurationError(
            f"{path} does not exist", hint="name a manifest file or a folder of them", code="manifest.file"
        )
    return [path]


def _text_of(file: Path) -> str | Problem:
    """The text of a file, without a byte order mark, or why it can't be read. Of one that is too large only so much that it shows."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 4)
    except OSError as error:
        return Problem(str(file), 1, "", f"the file can't be read: {error.strerror}", None, "manifest.file")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return Problem(str(file), 1, "", "the file is UTF-16", "save it as UTF-8", "manifest.file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        message = f"the file is not UTF-8: there is a byte {data[error.start]:#04x} in this line"
        return Problem(str(file), line, "", message, "save it as UTF-8", "manifest.file")


class _TooWrongError(Exception):
    """The file has too many problems: those are the last of them."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(len(problems))
        self.problems = problems


@dataclass(slots=True)
class _Reader:
    """Builds documents from the events of the parser, which tells where everything stands."""

    text: str
    file: str
    source: list[str] = field(default_factory=list)
    done: list[Document] = field(default_factory=list)
    lines: dict[Path_, int] = field(default_factory=dict)
    written: dict[Path_, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    legible: bool = True
    depth: int = 0
    count: int = 0
    wrong: int = 0

    def documents(self) -> list[Document]:
        """All documents. Raises yaml's errors; then `done` has those before the fault."""
        # Only line feeds: what else Python takes for a line's end, YAML's parser doesn't count.
        self.source = [line.rstrip("\r") for line in self.text.split("\n")]
        events: Iterator[yaml.Event] = yaml.parse(self.text, Loader=_Loader)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self.count += 1
                if self.count > MAX_DOCUMENTS:
                    raise _TooManyError(_line(event))
                self.lines, self.written, self.problems, self.legible, self.depth = {}, {}, [], True, 0
                data = self._value(next(events), events, ())
                if data is not None or self.problems:
                    made = Document(
                        data, self.lines, self.file, self.written, tuple(self.problems), self.legible, self.source
                    )
                    self.done.append(made)
        return self.done

    def _say(self, problem: Problem) -> None:
        self.problems.append(problem)
        self.wrong += 1
        if self.wrong >= MAX_PROBLEMS:
            raise _TooWrongError(self.problems)

    def _value(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path_) -> Any:
        line = self.lines.setdefault(path, _line(event))
        if isinstance(event, yaml.AliasEvent):
            self._unreadable(path, line, "YAML aliases are refused", _quoted_hint("*"))
            return None
        assert isinstance(event, yaml.NodeEvent)
        if event.anchor is not None:
            self._unreadable(path, line, "YAML anchors are refused", _quoted_hint("&"))
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path, line)
        if event.tag is not None:  # type: ignore[attr-defined]
            self._tag(event.tag, path, line)  # type: ignore[attr-defined]
        self.depth += 1
        if self.depth > MAX_DEPTH:
            mark: Any = event.start_mark
            raise yaml.MarkedYAMLError(problem=f"nested deeper than {MAX_DEPTH} levels", problem_mark=mark)
        found = self._mapping(events, path) if isinstance(event, yaml.MappingStartEvent) else self._list(events, path)
        self.depth -= 1
        return found

    def _mapping(self, events: Iterator[yaml.Event], path: Path_) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                self._complex_key(event, events, path, line)
                continue
            # A key is its text, whatever it would mean as a value: `no:` is the field `no`.
            key = str(event.value)
            if event.anchor is not None:
                self._unreadable(path, line, "YAML anchors are refused", _quoted_hint("&"))
            if event.tag is not None:
                self._tag(event.tag, path, line)
            if len(key) > MAX_KEY:
                message = f"the key {key[:20]!r}… has more than {MAX_KEY} characters"
                self._unreadable(path, line, message, "a long text is a value: write it behind a name")
                key = key[:MAX_KEY]
            here = (*path, key)
            if len(found) == MAX_KEYS and key not in found:
                raise _TooWideError(line)
            if key in found:
                message = f"the key {key!r} occurs twice, first in line {self.lines.get(here, line)}"
                if not path and key in _MANIFEST_KEYS:
                    if self.legible:
                        self._unreadable(here, line, message, "put a line `---` between two manifests")
                else:
                    self._say(Problem(self.file, line, spelled(here), message, "remove one of them", YAML_PROBLEM))
                before = self.lines[here]
                self._value(next(events), events, here)
                self.lines[here] = before
                continue
            self.lines[here] = line
            found[key] = self._value(next(events), events, here)
        return found

    def _list(self, events: Iterator[yaml.Event], path: Path_) -> list[Any]:
        found: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            found.append(self._value(event, events, (*path, len(found))))
        return found

    def _complex_key(self, event: yaml.Event, events: Iterator[yaml.Event], path: Path_, line: int) -> None:
        template = "{{" in self.source[line - 1] if line <= len(self.source) else False
        if template:
            message, hint = "YAML reads `{{` as the begin of a mapping", "put a text with a template in quotes"
        else:
            message, hint = (
                "a key must be plain text",
                "write `name: value`; put a text that begins with { or [ in quotes",
            )
        self._unreadable(path, line, message, hint)
        self._value(event, events, (*path, "?"))
        self._value(next(events), events, (*path, "?"))

    def _scalar(self, event: yaml.ScalarEvent, path: Path_, line: int) -> Any:
        text = str(event.value)
        if event.tag is not None:
            self._tag(event.tag, path, line)
            return text
        if event.style:  # in quotes, or a block
            return text
        value = self._meaning(text, path, line)
        if not isinstance(value, str):
            self.written[path] = text
        return value

    def _meaning(self, text: str, path: Path_, line: int) -> Any:
        """What a plain word means."""
        if text in _NULLS:
            return None
        if text in {text.lower(), text.upper(), text.capitalize()} and text.lower() in _BOOLEANS:
            return _BOOLEANS[text.lower()]
        if text[0] not in "+-.0123456789":
            return text
        number = _number(text)
        if number is None:
            return text
        if isinstance(number, _Refused):
            self._say(Problem(self.file, line, spelled(path), number.message, number.hint, YAML_PROBLEM))
            return number.value
        return number

    def _tag(self, tag: str, path: Path_, line: int) -> None:
        shown = tag.replace("tag:yaml.org,2002:", "!!")
        self._unreadable(
            path, line, f"YAML tags are refused, found {shown[:60]}", "put a text that begins with ! in quotes"
        )

    def _unreadable(self, path: Path_, line: int, message: str, hint: str) -> None:
        self.legible = False
        self._say(Problem(self.file, line, spelled(path), message, hint, YAML_PROBLEM))


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


@dataclass(frozen=True, slots=True)
class _Refused:
    """A number that is written in a way which surprises, with the number that was probably not meant."""

    value: int | float
    message: str
    hint: str


def _number(text: str) -> int | float | _Refused | None:
    """The number that a plain word is; None where it is none."""
    if len(text) > MAX_NUMBER:
        # Not read at all: what it takes to make a number of digits grows faster than they do.
        if _INTEGER.fullmatch(text) or _BASED.fullmatch(text):
            return _Refused(0, f"the number {text[:20]}… has more than 64 bits", _QUOTED)
        if any(form.fullmatch(text) for form in (_OCTAL, _BASE_60, _FLOAT)):
            return _Refused(0, f"the number {text[:20]}… has more than {MAX_NUMBER} characters", _QUOTED)
        return None
    plain = text.replace("_", "")
    if _INTEGER.fullmatch(text) or _BASED.fullmatch(text):
        value = int(plain, 0)
        if not -(2**63) <= value < 2**63:
            return _Refused(0, f"the number {text[:40]} has more than 64 bits", _QUOTED)
        return value
    if _OCTAL.fullmatch(text):
        value = int(plain, 8)
        meant = plain.lstrip("+-0") or "0"
        return _Refused(
            value,
            f"YAML reads {text[:40]} as the octal number {value}",
            f'write "{text[:40]}" for the text, or {meant[:40]} for the number',
        )
    if _BASE_60.fullmatch(text):
        value = _base_60(plain)
        return _Refused(
            value,
            f"YAML reads {text[:40]} as the number {value} (in base 60)",
            f'write "{text[:40]}" for the text; a length of time is written 90s or 1m30s',
        )
    if _NOT_FINITE.fullmatch(text):
        return _Refused(
            0, f"{text} is no number that a manifest can hold", "write a finite number, or put the text in quotes"
        )
    if _FLOAT.fullmatch(text):
        found = float(plain)
        if not math.isfinite(found):
            return _Refused(0, f"the number {text[:40]} is too large", "write a smaller one, or put the text in quotes")
        return found
    return None


def _base_60(plain: str) -> int:
    total = 0
    for digits in plain.partition(".")[0].lstrip("+-").split(":"):
        total = total * 60 + int(digits)
    return -total if plain.startswith("-") else total


def _quoted_hint(mark: str) -> str:
    return f"write the value out; put a text that begins with {mark} in quotes"
