"""Why a JVM ended, in one line, from what it left in its log: Java's traces are for the log alone."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

_MOST_BYTES = 256 * 1024
_TOGETHER_SECONDS = 30.0
"""Errors of one end: what failed first, and what failed because of it."""
_LONGEST = 300
_ENTRY = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)\S* +([A-Z]+) +\S+ (.*)")
_THROWN = re.compile(r'(?:Exception in thread "[^"]*" |Caused by: )?(?:[a-z_][\w$]*\.)+([A-Z][\w$]*)(?:: (.*))?')
_HEAP_EXIT = 3
"""How `-XX:+ExitOnOutOfMemoryError` ends a JVM."""
FULL = ("No space left on device", "Disk quota exceeded")


@dataclass(slots=True)
class _Entry:
    at: float
    level: str
    text: str
    thrown: list[str] = field(default_factory=list)
    """The exceptions of its trace, each with the text of it; the last one is at the root."""

    @property
    def line(self) -> str:
        if not self.thrown:
            return self.text
        root = self.thrown[-1]
        return root if not self.text or root in self.text or self.text in root else f"{self.text}: {root}"


def cause_of(logs: Sequence[tuple[Path, int]]) -> str:
    """What went wrong first, in one line of at most 300 characters; empty where nothing was said.

    `logs` are files, each with the byte from which on it belongs to this run.
    """
    entries = [entry for path, begin in logs for entry in _entries(_text(path, begin))]
    grave = [one for one in entries if one.level in {"ERROR", "FATAL"}]
    if grave:
        last = max(one.at for one in grave)
        grave = [one for one in grave if one.at >= last - _TOGETHER_SECONDS]
        # An exception says more than the line that announces an end.
        return _short(next((one for one in grave if one.thrown), grave[0]).line)
    thrown = [one for entry in entries for one in entry.thrown]
    if thrown:
        return _short(thrown[-1])
    spoken = [entry.text for entry in entries if entry.text and not entry.level]
    return _short(spoken[-1]) if spoken else ""


def explains_itself(code: int) -> bool:
    """Whether the exit code says it all: who was killed had no time to say why."""
    return code == -signal.SIGKILL


def how_it_ended(code: int) -> str:
    """An exit code as people say it."""
    if code >= 0:
        return "ran out of the memory of its heap" if code == _HEAP_EXIT else f"ended with code {code}"
    name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
    if -code == signal.SIGKILL:
        return f"was killed ({name}): by the system, which had no memory left, or by somebody"
    if -code in {signal.SIGABRT, signal.SIGSEGV, signal.SIGBUS}:
        return f"crashed ({name}): Java's own report is hs_err_pid*.log beside the broker's log"
    return f"was ended by {name}"


def _entries(text: str) -> list[_Entry]:
    """The lines of a log, each with the trace below it; lines of a console have no level."""
    found: list[_Entry] = []
    for line in text.splitlines():
        head = _ENTRY.match(line)
        if head is not None:
            found.append(_Entry(datetime.fromisoformat(head[1]).timestamp(), head[2], head[3].strip()))
            continue
        thrown = _THROWN.match(line.strip())
        if thrown is not None:
            if not found:
                found.append(_Entry(0.0, "", ""))
            found[-1].thrown.append(f"{thrown[2].strip()} ({thrown[1]})" if thrown[2] else thrown[1])
        elif line.strip() and not line.startswith(("\t", " ")) and not (found and found[-1].level):
            found.append(_Entry(0.0, "", line.strip()))
    return found


def _text(path: Path, begin: int) -> str:
    try:
        with path.open("rb") as file:
            end = file.seek(0, 2)
            file.seek(max(begin if begin <= end else 0, end - _MOST_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def _short(line: str) -> str:
    line = " ".join(line.split())
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"
