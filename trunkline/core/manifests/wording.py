"""What pydantic found, said for people: what stands there, what is expected, the nearest valid name, what to write instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from trunkline.core.errors import did_you_mean, nearest
from trunkline.core.manifests.documents import Origin
from trunkline.core.manifests.fields import field_at, fields_at, mentions, models_in, tags_of
from trunkline.core.manifests.problems import Path_, Problem
from trunkline.core.secret import REFERENCE, Secret, as_written, sounds_secret, without_secrets

_SHOWN = 60
_INVALID = "manifest.invalid"

_ELSEWHERE = "references such as ${env:NAME} are resolved in settings of `config`, and nowhere else"
_TRUTH = "true or false"
_FORMS = frozenset({"secret", "reference"})
"""Kinds of what `trunkline.core.secret` says of a reference."""

_TYPES = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": _TRUTH,
    "bool_parsing": _TRUTH,
    "list_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "dataclass_type": "a mapping",
    "none_required": "nothing",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least {}"),
    "greater_than": ("gt", "more than {}"),
    "less_than_equal": ("le", "at most {}"),
    "less_than": ("lt", "less than {}"),
    "multiple_of": ("multiple_of", "a multiple of {}"),
}
_HOW = {
    "a list": "write it as lines that begin with `- `, or as [a, b]",
    "a mapping": "write it as lines `name: value`, indented further than this one",
}


@dataclass(frozen=True, slots=True)
class _Item:
    """One error of pydantic, its place translated: `path` is what stands in the file, `branch` the first union branch on the way."""

    path: Path_
    kind: str
    loc: tuple[str | int, ...]
    message: str
    context: Mapping[str, Any]
    fork: Path_ | None
    branch: str | int | None


def problems_of(
    error: ValidationError,
    origin: Origin,
    prefix: Path_,
    model: type[BaseModel] | None = None,
    *,
    bare: str | None = None,
) -> list[Problem]:
    """The problems in an error of a model that was made of what stands at `prefix`; with `bare` that is the value of this field alone.

    While references are left as they are written, what is said of a value that holds one is no problem: only its value would tell.
    """
    items = [_item(one, origin, prefix, bare) for one in error.errors(include_url=False, include_input=False)]
    if as_written():
        # The form of a reference is judged at any rate.
        items = [one for one in items if one.kind in _FORMS or not _rests_on_reference(one, origin, model)]
    said = (_said(group, origin, model) for group in _by_place(_likeliest(items, origin, model)))
    return list(dict.fromkeys(said))


def describe(value: Any, written: str | None = None) -> str:
    """A value as a message names it: `the number 1.1 (written 1.10)`, `a list`, `nothing`."""
    if value is None:
        return f"nothing, which is how YAML reads `{written}`" if written else "nothing"
    if isinstance(value, bool):
        word = "true" if value else "false"
        return f"{word}, which is how YAML reads `{written}`" if written not in (None, word) else word
    if isinstance(value, (int, float)):
        text = str(value)
        return f"the number {text[:_SHOWN]}" + (f" (written {written[:_SHOWN]})" if written not in (None, text) else "")
    if isinstance(value, str):
        shown = str(without_secrets(value))
        return repr(shown[:_SHOWN]) + ("…" if len(shown) > _SHOWN else "")
    return "a list" if isinstance(value, (list, tuple)) else "a mapping"


def quoting_hint(value: Any, origin: Origin, path: Path_) -> str | None:
    """What to write where a text is wanted and YAML read something else; None where the value is no plain word."""
    document = origin.document
    if value is None and document.written.get(path):
        return f'put it in quotes: "{document.written[path]}"'
    if isinstance(value, (bool, int, float)):
        written = document.written.get(path, str(value).lower() if isinstance(value, bool) else str(value))
        return f'put it in quotes: "{written[:_SHOWN]}"'
    if value is None and " #" in document.text_of_line(path):
        return "`#` begins a comment: put a text that begins with it in quotes"
    return None


# --- from pydantic's place to that in the file --------------------------------------------------------------------------


def _item(found: Any, origin: Origin, prefix: Path_, bare: str | None) -> _Item:
    path: Path_ = ()
    fork: Path_ | None = None
    branch: str | int | None = None
    loc = found["loc"]
    for index, part in enumerate(loc):
        if index == 0 and part == bare:
            continue
        here = origin.document.value((*prefix, *path))
        inside = (isinstance(here, Mapping) and part in here) or (isinstance(here, list) and isinstance(part, int))
        # What is missing, and what no field is called, stands at the end; what else is not in the file names a branch of a union.
        named = index == len(loc) - 1 and found["type"] in {"missing", "extra_forbidden"}
        if inside or named:
            path = (*path, part)
        elif fork is None:
            fork, branch = (*prefix, *path), part
    return _Item((*prefix, *path), found["type"], loc, found["msg"], found.get("ctx", {}), fork, branch)


def _likeliest(items: Sequence[_Item], origin: Origin, model: type[BaseModel] | None) -> list[_Item]:
    """The items, of each union only those of the branch that was probably meant, where one was."""
    chosen: dict[Path_, Any] = {}
    for fork in dict.fromkeys(one.fork for one in items if one.fork is not None):
        branches: dict[Any, list[_Item]] = {}
        for one in items:
            if one.fork == fork:
                branches.setdefault(one.branch, []).append(one)
        deep = {name: found for name, found in branches.items() if any(one.path != fork for one in found)}
        if deep:
            chosen[fork] = min(deep, key=lambda name: _distance(deep[name], origin, model))
    return [one for one in items if one.fork not in chosen or one.branch == chosen[one.fork]]


def _distance(items: Sequence[_Item], origin: Origin, model: type[BaseModel] | None) -> float:
    """How far a mapping is from a branch: each wrong field counts, a misspelt one less than a strange one."""
    total = 0.0
    for one in items:
        known = fields_at(model, one.loc[:-1]) if model is not None else []
        close = one.kind == "extra_forbidden" and nearest(str(one.path[-1]), known) is not None
        total += 0.5 if close else 1.0
    return total


def _by_place(items: Iterable[_Item]) -> list[list[_Item]]:
    """Items of one place and no more than one kind of saying: the branches of a union are one sentence."""
    groups: dict[tuple[Path_, str], list[_Item]] = {}
    for one in items:
        simple = one.kind in _TYPES or one.kind == "literal_error"
        groups.setdefault((one.path, "expected" if simple else f"{one.kind} {one.message}"), []).append(one)
    return list(groups.values())


# --- the sentences ------------------------------------------------------------------------------------------------------


def _said(group: Sequence[_Item], origin: Origin, model: type[BaseModel] | None) -> Problem:
    one = group[0]
    field = field_at(model, one.loc) if model is not None else None
    value, written = origin.document.value(one.path), origin.document.written.get(one.path)
    secret = _is_secret(one.path, field)
    found = "" if secret else f", found {describe(value, written)}"
    name = one.path[-1] if one.path else ""
    if one.kind == "extra_forbidden":
        return origin.problem(one.path, f"unknown field {name!r}", _meant(one, model), "manifest.unknown_field")
    if one.kind == "missing":
        return origin.problem(one.path, f"the field {name!r} is missing", _what(field), "manifest.missing_field")
    if one.kind in {"union_tag_not_found", "union_tag_invalid"}:
        return _tag(one, origin, field)
    if one.kind in _TYPES or one.kind == "literal_error":
        return _expected(group, origin, value, found, field)
    if one.kind in _BOUNDS:
        name_of_bound, form = _BOUNDS[one.kind]
        bound = form.format(_plain(one.context.get(name_of_bound)))
        return origin.problem(one.path, f"{bound} is expected{found}", _what(field))
    if one.kind in {"string_too_short", "too_short"}:
        least = one.context.get("min_length", 1)
        what = "a text" if one.kind == "string_too_short" else "a list"
        parts = "characters" if one.kind == "string_too_short" else "items"
        message = (
            f"{what} that is not empty is expected" if least == 1 else f"at least {least} {parts} are expected{found}"
        )
        return origin.problem(one.path, message, _what(field))
    if one.kind in {"string_too_long", "too_long"}:
        most = one.context.get("max_length")
        what = ("character" if one.kind == "string_too_long" else "item") + (" is" if most == 1 else "s are")
        return origin.problem(one.path, f"no more than {most} {what} expected", _what(field))
    if one.kind == "string_pattern_mismatch":
        shown = "the value" if secret else describe(value, written)
        return origin.problem(one.path, f"{shown} has not the form that is expected here", _what(field))
    if one.kind == "truth":
        path = (*one.path, one.context["field"])
        found = describe(origin.document.value(path), origin.document.written.get(path))
        return origin.problem(path, f"a number is expected, found {found}")
    if one.kind in _FORMS:
        path = (*one.path, one.context["field"]) if "field" in one.context else one.path
        return origin.problem(path, one.context["message"], one.context["hint"], one.context.get("code") or _INVALID)
    message = one.message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    resolved = "config" in one.path or "steps" in one.path
    if resolved and _refers(value):
        # What the validator found is the value of the reference, which is nobody's business.
        which = str(value)[:_SHOWN] if isinstance(value, str) else "one of its references"
        message = f"{message.partition(', found ')[0]}, and {which} gives something else"
    elif one.kind != "name" and "found" not in message and not isinstance(value, Mapping):
        message += found
    hint = one.context.get("hint")
    if _refers(value) and not resolved:
        hint = _ELSEWHERE
    return origin.problem(one.path, message, hint)


def _meant(one: _Item, model: type[BaseModel] | None) -> str | None:
    """What an unknown field was probably meant as: a known one, a field and its value run together, or a field of `spec`."""
    name = str(one.path[-1])
    known = fields_at(model, one.loc[:-1]) if model is not None else []
    first, rest = re.match(r"([^:\s]*):?\s*(.*)", name, re.DOTALL).groups()  # type: ignore[union-attr]
    if rest and first in known:
        return f"write `{first}: {rest[:_SHOWN]}`, with a blank after the colon"
    if len(one.path) == 1 and model is not None and name in fields_at(model, ("spec",)):
        return "it belongs to `spec`: indent it as the lines above it"
    return did_you_mean(name, known) if known else None


def _expected(group: Sequence[_Item], origin: Origin, value: Any, found: str, field: FieldInfo | None) -> Problem:
    """One sentence for what a value should be: of a union each branch has its word."""
    allowed = list(dict.fromkeys(word for one in group if one.kind == "literal_error" for word in _literals(one)))
    kinds = list(dict.fromkeys(_TYPES[one.kind] for one in group if one.kind in _TYPES))
    words = [*allowed, *(kind for kind in kinds if kind not in {"a whole number", _TRUTH} or len(kinds) == 1)]
    if _TRUTH in kinds and _TRUTH not in words:
        words += ["true", "false"]
    if "a whole number" in kinds and len(kinds) > 1 and "a number" not in kinds:
        words.append("a whole number")
    path, wanted = group[0].path, _either(words)
    hint = quoting_hint(value, origin, path) if "text" in kinds or allowed else None
    if hint is None and allowed and isinstance(value, str):
        close = nearest(value, allowed)
        hint = f"did you mean {close!r}?" if close is not None else None
    if hint is None and not allowed and len(kinds) == 1:
        hint = _HOW.get(kinds[0])
    if _refers(value) and "config" not in path and "steps" not in path:
        hint = _ELSEWHERE
    return origin.problem(path, f"{wanted} is expected{found}", hint or _what(field))


def _tag(one: _Item, origin: Origin, field: FieldInfo | None) -> Problem:
    """A choice between settings that one field decides, such as `type`."""
    name = str(one.context.get("discriminator", "type")).strip("'")
    value = origin.document.value(one.path)
    if one.kind == "union_tag_not_found":
        models = models_in(field.annotation) if field is not None else []
        allowed = [str(tag) for model in models for tag in tags_of(model, name)]
        hint = f"write {name}: {_either(allowed)}" if allowed else None
        if isinstance(value, Mapping):
            return origin.problem((*one.path, name), f"the field {name!r} is missing", hint, "manifest.missing_field")
        return origin.problem(one.path, f"a mapping is expected, found {describe(value)}", hint)
    allowed, tag = _quoted(str(one.context.get("expected_tags", ""))), str(one.context.get("tag", ""))
    path = (*one.path, name) if isinstance(value, Mapping) else one.path
    close = nearest(tag, allowed)
    hint = f"did you mean {close!r}?" if close is not None else _what(field)
    return origin.problem(path, f"{_either(allowed)} is expected, found {tag[:_SHOWN]!r}", hint)


def _literals(one: _Item) -> list[str]:
    return _quoted(str(one.context.get("expected", "")))


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _either(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}" if words else "another value"


def _plain(bound: Any) -> str:
    return f"{bound:g}" if isinstance(bound, float) else str(bound)


def _what(field: FieldInfo | None) -> str | None:
    """What a field is for, and an example, as its settings class says."""
    if field is None or not field.description:
        return None
    sentence = field.description
    example = next(iter(field.examples or ()), None)
    return sentence if example is None else f"{sentence.rstrip('.')}. Such as: {str(example)[:80]}"


def _is_secret(path: Path_, field: FieldInfo | None) -> bool:
    if field is not None and mentions(field.annotation, Secret):
        return True
    return any(isinstance(part, str) and sounds_secret(part) for part in path[-2:])


def _rests_on_reference(one: _Item, origin: Origin, model: type[BaseModel] | None) -> bool:
    """Whether only the value of a reference would tell if an error is true. What is said of settings as a whole is true anyway."""
    value = origin.document.value(one.path)
    if isinstance(value, Mapping):
        field = field_at(model, one.loc) if model is not None else None
        if field is None or models_in(field.annotation):
            return False
    return _refers(value)


def _refers(value: Any) -> bool:
    """Whether a value, or one within it, is or holds a reference."""
    if isinstance(value, str):
        return REFERENCE.search(value) is not None
    if isinstance(value, Mapping):
        return any(_refers(item) for item in value.values())
    return isinstance(value, list) and any(_refers(item) for item in value)
