"""What is wrong with manifests: a file, a line, a field, what was found there, and what to write instead."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from trunkline.core.errors import ConfigurationError
from trunkline.core.redaction import redact

Path_ = tuple[str | int, ...]
"""Where a value stands in a document: `("spec", "to", 0, "when")`."""

LONGEST = 1_000
"""Characters of a message."""
_PART = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where (file, line, field), what, and what to do.

    Messages repeat what a manifest says: what is long in it is cut, and signs that nobody sees are shown by their numbers.
    Secrets are blanked, as in errors.
    """

    file: str
    line: int
    field: str
    message: str
    hint: str | None = None
    code: str = "manifest.invalid"

    def __post_init__(self) -> None:
        for name in ("field", "message", "hint"):
            text = getattr(self, name)
            if text is None:
                continue
            told = redact(text)
            if told is not text or len(told) > LONGEST or not told.isprintable():
                object.__setattr__(self, name, _readable(told))

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" + (f": {self.field}" if self.field else "")
        return f"{place}: {self.message}" + (f" ({self.hint})" if self.hint else "")

    def as_dict(self) -> dict[str, Any]:
        """The problem as data."""
        return {name: getattr(self, name) for name in ("file", "line", "field", "message", "hint", "code")}


def _readable(text: str) -> str:
    cut = text if len(text) <= LONGEST else f"{text[: LONGEST - 200]} … {text[-199:]}"
    return "".join(
        sign if sign.isprintable() or sign == "\n" else sign.encode("unicode_escape").decode() for sign in cut
    )


class ManifestError(ConfigurationError):
    """Manifests have problems; nothing was applied. `problems` has every one."""

    code = "manifest.invalid"

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


def spelled(path: Path_) -> str:
    """A path as people write it: `spec.to[0].when`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else str(part))
    return text


def path_in(where: str | None) -> Path_:
    """The path that `spec.to[0].when` spells; empty for what is no path of a manifest."""
    if not where or not where.startswith("spec"):
        return ()
    return path_of(where)


def path_of(text: str) -> Path_:
    """The path that a text such as `to[0].when` spells."""
    return tuple(int(index) if index else name for name, index in _PART.findall(text))
