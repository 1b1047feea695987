"""What the benchmarks found, collected and written as docs/performance.md.

A benchmark calls `add` for each of its tables; the results stay in `benchmarks/results/`, one file a section, until the same
section is measured again. `python -m benchmarks.report` writes the page from what is there.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
PACKAGES = ("trunkline", "confluent-kafka", "fastavro", "aiohttp", "orjson", "uvloop")
HEAD = """# Performance

Measured by `make bench`, which writes this page: every section names the day, the commit and the machine. Figures of one table come
from one run, with the contenders taking turns on the same broker and the same data; medians of the rounds. On a small shared
machine the figures are good for comparing rows of one table, not as absolute numbers: the ratios and the CPU seconds count.
Ours runs with default settings, with trace, ledger and metrics on.
"""

Row = Mapping[str, Any]
"""One row of a table by column title: text, or a number, which is written with thousands separators."""


def add(section_title: str, table_rows: Sequence[Row], notes: Sequence[str] = (), *, data: Any = None) -> Path:
    """Keeps one section's table, with what is needed to judge it, and returns its file.

    The rows' keys are the columns, in the order in which they appear first. `notes` are sentences below the table. `data` is what
    the rows were made from (every single run), kept in the file and not shown.
    """
    columns = list(dict.fromkeys(name for row in table_rows for name in row))
    found = {
        "title": section_title,
        "columns": columns,
        "rows": [[row.get(name) for name in columns] for row in table_rows],
        "notes": list(notes),
        "measured": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": machine(),
        "versions": versions(),
        "data": data,
    }
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{_slug(section_title)}.json"
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return path


def table(rows: Sequence[Row]) -> list[str]:
    """The lines of a Markdown table, for the terminal and the page."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return _lines(columns, [[row.get(name) for name in columns] for row in rows])


def render(sections: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    parts = [HEAD]
    for section in sections:
        lines = [f"## {section['title']}", "", *_lines(section["columns"], section["rows"]), ""]
        lines += [f"{note}\n" for note in section["notes"]]
        found = section["versions"]
        lines.append(
            f"{section['measured'][:10]}, commit {section['commit']}; {section['machine']}; "
            + ", ".join(f"{name} {number}" for name, number in found.items())
            + "."
        )
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def write(page: Path = PAGE) -> Path:
    """Writes the page from all results that are kept, in the order of their titles."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    page.write_text(render(found), encoding="utf-8")
    return page


def machine() -> str:
    """Processor, cores and memory in words."""
    try:
        names = re.findall(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        names = []
    name = names[0] if names else platform.machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{name}, {os.cpu_count()} cores, {memory:.0f} GiB"


def versions() -> dict[str, str]:
    """The versions that bear on the figures."""
    from confluent_kafka import libversion

    found = {"Python": platform.python_version(), "librdkafka": libversion()[0]}
    return found | {name: version(name) for name in PACKAGES}


def _lines(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    return lines + ["| " + " | ".join(_text(value) for value in row) + " |" for row in rows]


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 100 else f"{value:.2f}"


def _commit() -> str:
    try:
        run = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=RESULTS.parent, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return run.stdout.strip()


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")


if __name__ == "__main__":
    print(f"wrote {write()}")
