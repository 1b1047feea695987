"""Edits of dead letters from options of the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trunkline.bus.redrive.edits import Changes, Edit
from trunkline.core.errors import ConfigurationError


def edit_of(file: str | None, assignments: Sequence[str], places: Sequence[str]) -> dict[str, Any] | None:
    """The edit as data, None where nothing is edited. Raises `ConfigurationError` for a wrong file or expression."""
    if file is None and not assignments:
        return None
    if file is not None and assignments:
        raise ConfigurationError(
            "--edit gives the whole value: leave out --set", where="--edit", code="option.conflict"
        )
    if file is not None:
        if len(places) != 1:
            raise ConfigurationError(
                "--edit is for one letter",
                where="--edit",
                hint="name its place, as `dlq show` lists it; --set changes many",
                code="option.missing",
            )
        return Edit(document=_document(file)).as_dict()
    changes = {}
    for assignment in assignments:
        name, sign, text = assignment.partition("=")
        if not sign or not name.strip() or not text.strip():
            raise ConfigurationError(
                f"{assignment!r} is no assignment",
                where="--set",
                hint="write FIELD=CEL, such as --set 'country=\"DE\"'",
                code="option.assignment",
            )
        changes[name.strip()] = text.strip()
    Changes(changes)
    return Edit(set=changes).as_dict()


def _document(file: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"{file} can't be read as JSON: {error}", where="--edit", code="option.file"
        ) from error
    if not isinstance(found, dict):
        raise ConfigurationError(f"{file} holds no JSON object", where="--edit", code="option.file")
    return found
