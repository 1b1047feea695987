"""`docs/reliability.md`: what the campaign did and what came of it."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import confluent_kafka

from tests.chaos.results import ROOT, Stored
from trunkline.bus.embedded.options import KAFKA_VERSION

PAGE = ROOT / "docs" / "reliability.md"
_HEAD = """# Reliability, as tested

Written by `make chaos`: the full figures of the fault campaign in `tests/chaos`. Each row loads the bus, makes something fail, lets it
drain, and has a checker judge the whole history: what was acknowledged, called, changed, dead-lettered, filtered and committed. The
column *fired* counts the faults that really happened; a row whose faults did not fire has failed. The checker itself is row 1. What
one broker on one machine can't show is not shown: it survives the kill of its process, not the loss of power.

`TRUNKLINE_CHAOS_SEED=<seed> make chaos ARGS="--rows <row> --again"` repeats a row with its seed.

| row | load | fault | figures | fired | seed | seconds | verdict |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""


def versions() -> dict[str, str]:
    """What ran: Trunkline's commit, Kafka, librdkafka, Python."""
    return {
        "Trunkline": _commit(),
        "Kafka": KAFKA_VERSION,
        "librdkafka": confluent_kafka.libversion()[0],
        "Python": platform.python_version(),
    }


def _commit() -> str:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    commit = git("rev-parse", "--short", "HEAD")
    return f"{commit or 'unknown'}{' with changes' if git('status', '--porcelain', '--', '*.py') else ''}"


def page(results: Iterable[Stored]) -> str:
    """The report on these results."""
    rows = sorted(results, key=lambda one: one.result.number)
    passed = sum(one.result.passed for one in rows)
    seconds = sum(one.result.seconds for one in rows)
    lines = [_HEAD + "".join(map(_line, rows))]
    lines.append(f"\n{passed} of {len(rows)} rows passed, in {seconds / 60:.0f} minutes together.\n")
    for one in rows:
        lines += [f"\n- row {one.result.number}: {_cell(finding)}" for finding in one.result.findings]
    lines.append("\n## Versions\n\n| rows | ended | " + " | ".join(versions()) + " |\n")
    lines.append("| --- | --- |" + " --- |" * len(versions()) + "\n")
    for numbers, last, found in _grouped(rows):
        lines.append(f"| {numbers} | {last} | " + " | ".join(found.values()) + " |\n")
    return "".join(lines)


def write(results: Iterable[Stored], path: Path = PAGE) -> None:
    """Writes the report."""
    path.write_text(page(results), encoding="utf-8")


def _line(stored: Stored) -> str:
    one = stored.result
    cells = [
        f"{one.number} {one.title}",
        one.load,
        one.fault,
        _pairs(one.notes),
        _pairs(one.fired),
        str(one.seed),
        f"{one.seconds:.0f}",
        "passed" if one.passed else "**failed**",
    ]
    return "| " + " | ".join(map(_cell, cells)) + " |\n"


def _pairs(found: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in found.items()
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;") or "–"


def _grouped(rows: list[Stored]) -> Iterable[tuple[str, str, dict[str, str]]]:
    """Rows that ran with the same versions."""
    groups: dict[tuple[str, ...], list[Stored]] = {}
    for one in rows:
        groups.setdefault(tuple(one.versions.values()), []).append(one)
    for same in groups.values():
        numbers = ", ".join(str(one.result.number) for one in same)
        yield numbers, max(one.result.ended for one in same)[:10], same[0].versions
