"""`python -m tests.chaos`: runs the campaign row by row, goes on where it was broken off, and writes the report."""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.chaos import report
from tests.chaos.campaign import Result, Row, execute, load_rows
from tests.chaos.demo import kill_demo
from tests.chaos.results import ROOT, Results, Stored, code_version
from trunkline.core.log import configure_logging

SEED = "TRUNKLINE_CHAOS_SEED"
FOLDER = ROOT / ".trunkline" / "chaos"


def main(arguments: list[str] | None = None) -> int:
    """Runs what was asked. 0 when every row passed, 1 when one failed, 2 for wrong input."""
    asked = _parser().parse_args(arguments)
    configure_logging("critical", style="text")  # what goes wrong is said by the findings
    if asked.demo:
        return kill_demo(kills=asked.kills, seed=asked.seed, folder=asked.folder / "demo")
    rows = load_rows()
    chosen = _chosen(asked.rows, rows)
    if asked.list:
        for one in rows.values():
            print(f"{one.number:>3}  {one.title}")
        return 0
    results = Results(asked.folder / ("short" if asked.short else "full"))
    seed = asked.seed if asked.seed is not None else int(os.environ.get(SEED) or results.seed())
    print(f"seed {seed} ({SEED} sets it); results are kept in {results.folder}")
    for one in chosen if not asked.report else []:
        if not asked.again and results.passed(one, seed):
            print(f"row {one.number}: passed before with this code and seed")
            continue
        _run(one, seed, results, full=not asked.short)
    known = [stored for number in rows if (stored := results.of(number)) is not None]
    if not asked.short and known:
        page = report.PAGE if asked.folder == FOLDER else asked.folder / report.PAGE.name
        report.write(known, page)
        print(f"report: {page}")
    failed = [one.number for one in chosen if (last := results.of(one.number)) is None or not last.result.passed]
    if failed:
        print(f"not passed: rows {', '.join(map(str, failed))}")
    return 1 if failed else 0


def _run(one: Row, seed: int, results: Results, *, full: bool) -> None:
    print(f"row {one.number}: {one.title}", flush=True)
    folder = results.folder / f"run-{one.number:02}"
    shutil.rmtree(folder, ignore_errors=True)
    result = asyncio.run(_executed(one, seed, folder, full))
    results.store(Stored(result, code_version(one), report.versions()))
    for name, value in {**result.notes, **result.fired}.items():
        print(f"    {name}: {value}")
    for finding in result.findings:
        print(f"    FOUND {finding}")
    print(f"    {'passed' if result.passed else 'FAILED'} in {result.seconds:g} s", flush=True)
    if result.passed:
        shutil.rmtree(folder, ignore_errors=True)


async def _executed(one: Row, seed: int, folder: Path, full: bool) -> Result:
    try:
        return await execute(one, seed=seed, folder=folder, full=full)
    except Exception as error:  # noqa: BLE001 (a short run raises; here it is a failed one)
        return Result(
            one.number,
            one.title,
            seed,
            one.load,
            one.fault,
            {},
            {},
            [f"{type(error).__name__}: {error}"],
            0.0,
            time.strftime("%F"),
        )


def _chosen(asked: str | None, rows: Mapping[int, Row]) -> list[Row]:
    if asked is None:
        return list(rows.values())
    numbers = [int(one) for one in asked.split(",")]
    unknown = [number for number in numbers if number not in rows]
    if unknown:
        print(f"there is no row {unknown[0]}; there are {', '.join(map(str, rows))}", file=sys.stderr)
        raise SystemExit(2)
    return [rows[number] for number in numbers]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rows", help="Only these rows, such as 4,5.")
    parser.add_argument("--again", action="store_true", help="Run rows that passed with this code and seed, too.")
    parser.add_argument("--short", action="store_true", help="The short figures, as `make test` runs them.")
    parser.add_argument("--seed", type=int, help=f"Everything random follows from it; else {SEED}, else a random one.")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="Where results are kept.")
    parser.add_argument("--list", action="store_true", help="Say which rows there are.")
    parser.add_argument("--report", action="store_true", help="Write the report from what is stored; run nothing.")
    parser.add_argument("--demo", action="store_true", help="Kill the demo's worker while the demo's project runs.")
    parser.add_argument("--kills", type=int, default=5, help="How often the demo's worker is killed.")
    return parser


if __name__ == "__main__":
    sys.exit(main())
