"""What a YAML parser's words mean for who wrote the file: what is wrong in which line, and how it is written right."""

from __future__ import annotations

import re
from collections.abc import Sequence

import yaml

_RESERVED = {
    "@": "a text that begins with @",
    "`": "a text that begins with a backtick",
    "%": "a text that begins with %",
}
_LOOKALIKES = {
    "\u00a0": "a no-break space",
    "\u3000": "an ideographic space",
    "\u2003": "an em space",
    "\uff1a": "a full-width colon",
    "\u200b": "a zero-width space",
}
_LOOK = "look at the indentation, quotes and brackets of this line and of the one before"


def explained(error: yaml.MarkedYAMLError, source: Sequence[str]) -> tuple[int, str, str | None]:
    """The line (from 1) that is to be mended, what is wrong there, and what to write instead."""
    problem, context = str(error.problem or ""), str(error.context or "")
    mark = error.problem_mark or error.context_mark
    begun = error.context_mark.line if error.context_mark is not None else mark.line if mark is not None else 0
    last = max(len(source) - 1, 0)
    at, column = (min(mark.line, last), mark.column) if mark is not None else (0, 0)
    begun = min(begun, last)
    tab = _tab(source, begun, at)
    if tab is not None:
        return (
            tab + 1,
            "the line is indented with a tab, and YAML is indented with spaces",
            "replace each tab by spaces",
        )
    line = source[at] if source else ""
    strange = _strange(source, max(0, at - 2), at)
    if strange is not None:
        return strange
    if "quoted scalar" in context and ("end of stream" in problem or "document indicator" in problem):
        return (
            begun + 1,
            "the quote that opens in this line is never closed",
            "close it, or double a quote that is text",
        )
    if "escape character" in problem or "hexdecimal" in problem or "Unicode character" in problem:
        hint = "use single quotes, in which a backslash is just that, or write it twice"
        return at + 1, "in double quotes a backslash begins an escape, and this one is none", hint
    if "alias" in context or "anchor" in context:
        sign = "*" if "alias" in context else "&"
        return (
            at + 1,
            f"YAML reads {sign} as the begin of {'an alias' if sign == '*' else 'an anchor'}",
            f"put a text that begins with {sign} in quotes",
        )
    if "tag" in context or "tag handle" in problem:
        return at + 1, "YAML reads ! as the begin of a tag", "put a text that begins with ! in quotes"
    if "start any token" in problem:
        found = line[column : column + 1]
        if found == "\t":
            return at + 1, "there is a tab where YAML wants a blank", "replace it by a blank"
        what = _RESERVED.get(found, f"a text that begins with {found!r}")
        return (
            at + 1,
            f"YAML keeps {found!r} for itself: {what} must be in quotes",
            f'write "{_word(line[column:])}"',
        )
    if "mapping values are not allowed" in problem:
        return _second_colon(source, at, column)
    if "block sequence entries are not allowed" in problem:
        return at + 1, "a list can't begin here", "begin it in a line of its own, each item with `- `"
    if "expected ',' or" in problem:
        closing = "]" if "]" in problem else "}"
        opening, what = ("[", "list") if closing == "]" else ("{", "mapping")
        return _template(source, max(begun, at - 1), at) or (
            at + 1,
            f"the {what} that opens with {opening} in line {begun + 1} is not closed, or a comma is missing",
            f"close it with {closing}, or separate its parts with commas",
        )
    if "found unexpected ':'" in problem:
        return at + 1, "a colon must have a blank after it", _LOOK
    if "could not find expected ':'" in problem:
        where = min(at, begun)
        return (
            where + 1,
            "the line is neither `name: value` nor an item `- value`",
            "a colon with a blank after it may be missing",
        )
    if "expected key" in problem or "expected '-' indicator" in problem or "expected <block end>" in problem:
        return _template(source, max(begun, at - 1), at) or (at + 1, _indentation(source, begun, at), _LOOK)
    if "document start" in problem:
        return at + 1, "a line `---` is expected here, which separates two documents", _LOOK
    if "node content" in problem:
        return at + 1, "a value is missing here", _LOOK
    if problem.startswith("nested deeper"):
        return at + 1, problem, "no manifest is so deep: look at the brackets"
    if "control characters" in problem:
        return at + 1, "there is a control character that YAML does not allow", "delete it"
    return at + 1, f"this is no YAML: {problem or context}", _LOOK


def _word(text: str) -> str:
    """The plain text at the begin of `text`: to the next bracket or comma."""
    return re.split(r"[,}\]]", text)[0].strip()[:60]


def _tab(source: Sequence[str], first: int, last: int) -> int | None:
    """The first line between the two whose indentation holds a tab."""
    for number in range(last, max(first, last - 50) - 1, -1):
        line = source[number] if number < len(source) else ""
        if "\t" in line[: len(line) - len(line.lstrip())] and line.strip():
            return number
    return None


def _template(source: Sequence[str], first: int, last: int) -> tuple[int, str, str | None] | None:
    """A template without quotes: `{{` opens two mappings."""
    for number in range(first, min(last + 1, len(source))):
        before, braces, _ = source[number].partition("{{")
        if braces and not before.count('"') % 2 and not before.count("'") % 2:
            return number + 1, "YAML reads `{{` as the begin of a mapping", "put a text with a template in quotes"
    return None


def _second_colon(source: Sequence[str], at: int, column: int) -> tuple[int, str, str | None]:
    line = source[at] if at < len(source) else ""
    before = line[:column]
    if ": " in before or before.rstrip().endswith(":"):
        hint = "put the whole value in quotes (single ones, where it holds double ones)"
        return at + 1, "a text with `: ` in it must be in quotes, or YAML takes it for another `name: value`", hint
    return at + 1, "this line is indented further than the line before it allows", _LOOK


def _indentation(source: Sequence[str], begun: int, at: int) -> str:
    line = source[at] if at < len(source) else ""
    if not line.strip():
        return f"what begins in line {begun + 1} is not complete"
    return f"this line fits none of the lines above it: compare its indentation with that of line {begun + 1}"


def _strange(source: Sequence[str], first: int, last: int) -> tuple[int, str, str | None] | None:
    """Characters that look like a blank or a colon and are none."""
    for number in range(first, min(last + 1, len(source))):
        for character, name in _LOOKALIKES.items():
            if character in source[number]:
                return number + 1, f"there is {name} in this line, which YAML takes for a letter", "type it anew"
    return None
