"""Files that live: they grow, are rotated, truncated, half-written, moved in late; and the source that is killed meanwhile."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from file_runs import Run, opened, started
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.file import progress
from connectors.file.progress import FOLLOWED, Seen
from connectors.file.root import Root

LONG = 3600.0
"""Seconds ahead: every file is idle."""


def numbers(run: Run) -> list[str]:
    return [value["n"] for value in run.values]


def append(path: Path, text: str) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(text)


async def test_a_growing_file_gives_each_line_once_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n")
    run = await started(path)
    assert await run.drain() == []
    append(path, "\n1\n2")
    await run.drain()
    assert numbers(run) == ["1"]
    append(path, "2\n3\n")
    await run.drain()
    assert numbers(run) == ["1", "22", "3"]
    assert await run.drain() == []


async def test_a_position_does_not_change_while_nothing_happens(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n\n1\n2")
    run = await started(path)
    await run.drain()
    before = run.position
    await run.drain()
    assert run.position == before


async def test_a_last_line_without_end_is_taken_when_the_file_is_idle_or_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n\n1\n2")
    emitting = await started(path, later=LONG)
    await emitting.drain()
    assert numbers(emitting) == ["1", "2"]
    waiting = await started(path, later=LONG, final_line="wait")
    await waiting.drain()
    assert numbers(waiting) == ["1"]


async def test_a_record_that_is_cut_inside_quotes_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('n,t\n1,x\n2,"first\n')
    run = await started(path)
    await run.drain()
    assert numbers(run) == ["1"]
    append(path, 'second"\n3,y\n')
    await run.drain()
    assert numbers(run) == ["1", "2", "3"]
    assert run.rejected == []


async def test_a_renamed_file_is_read_to_its_end_before_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "app.csv"
    path.write_text("n\n1\n2\n")
    run = await started(path)
    await run.drain()
    append(path, "3\n")
    path.rename(tmp_path / "app.csv.1")
    append(tmp_path / "app.csv.1", "4\n")
    path.write_text("n\n5\n")
    for name in ("app.csv", "app.csv.1"):
        os.utime(tmp_path / name, (2000, 2000))
    await run.drain()
    append(tmp_path / "app.csv.1", "late\n")
    append(path, "6\n")
    os.utime(path.with_name("app.csv.1"), (3000, 3000))
    await run.drain()
    assert numbers(run) == ["1", "2", "3", "4", "5", "late", "6"]


@pytest.mark.parametrize("pattern", [None, "app.csv*"])
async def test_a_file_copied_and_truncated_loses_and_repeats_nothing(tmp_path: Path, pattern: str | None) -> None:
    path = tmp_path / "app.csv"
    path.write_text("n\n1\n2\n3\n")
    run = await started(tmp_path if pattern else path, pattern=pattern)
    await run.drain()
    append(path, "4\n")
    shutil.copyfile(path, tmp_path / "app.csv.1")
    os.truncate(path, 0)
    append(path, "n\n5\n")
    await run.drain()
    assert sorted(numbers(run)) == ["1", "2", "3", "4", "5"]


async def test_a_file_rewritten_in_place_is_a_new_file_with_new_ids(tmp_path: Path) -> None:
    path = tmp_path / "export.csv"
    path.write_text("n\n1\n2\n3\n")
    run = await started(path)
    await run.drain()
    path.write_text("n\n1\n7\n3\n")  # the same size, the same first row
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 10**9))
    await run.drain()
    assert numbers(run) == ["1", "2", "3", "1", "7", "3"]
    assert len({event.id for event in run.events}) == 6


async def test_a_file_that_was_only_touched_is_not_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n\n1\n")
    run = await started(path, later=LONG)
    await run.drain()
    os.utime(path, ns=(10**18, 10**18))
    await run.drain()
    restarted = Run(await opened(path, later=LONG), run.position)
    assert await restarted.drain() == []
    assert numbers(run) == ["1"]


async def test_a_folder_is_read_by_time_and_equal_times_by_name(tmp_path: Path) -> None:
    for name, moment in (("c.csv", 5), ("b.csv", 7), ("a.csv", 7), ("d.txt", 1), (".e.csv", 1), ("f.csv.part", 1)):
        (tmp_path / name).write_text(f"n\n{name}\n")
        os.utime(tmp_path / name, (moment, moment))
    run = await started(tmp_path, pattern="*.csv*", batch=1)
    await run.drain()
    assert numbers(run) == ["c.csv", "a.csv", "b.csv"]


async def test_a_file_that_arrives_late_with_an_old_time_is_read(tmp_path: Path) -> None:
    inbox = tmp_path / "in"
    inbox.mkdir()
    run = await started(inbox, pattern="*.csv", later=LONG)
    for number in range(FOLLOWED + 30):
        (inbox / f"{number:03}.csv").write_text(f"n\n{number}\n")
        os.utime(inbox / f"{number:03}.csv", (1000 + number, 1000 + number))
    await run.drain()
    assert run.position["mark"] is not None
    (tmp_path / "late").write_text("n\nlate\n")
    os.utime(tmp_path / "late", (500, 500))
    (tmp_path / "late").rename(inbox / "late.csv")
    await run.drain()
    assert numbers(run) == [*map(str, range(FOLLOWED + 30)), "late"]


async def test_many_files_that_come_with_old_times_while_nobody_looks_are_read(tmp_path: Path) -> None:
    inbox = tmp_path / "in"
    inbox.mkdir()
    run = await started(inbox, pattern="*.csv", later=LONG)
    for number in range(FOLLOWED + 30):
        (inbox / f"new{number:03}.csv").write_text(f"n\nnew{number}\n")
    await run.drain()
    assert run.position["mark"] is not None
    late = [f"old{number}" for number in range(150)]
    for age, name in enumerate(late):
        # The one that comes first is the youngest: by time it is read last.
        (tmp_path / name).write_text(f"n\n{name}\n")
        os.utime(tmp_path / name, (10_000 - age, 10_000 - age))
        (tmp_path / name).rename(inbox / f"{name}.csv")
    again = Run(await opened(inbox, pattern="*.csv", later=LONG, batch=7), run.position)
    await again.drain()
    assert sorted(numbers(again)) == sorted(late)


@given(
    arrivals=st.lists(
        st.tuples(
            st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2)), max_size=8), st.integers(0, 4), st.booleans()
        ),
        max_size=7,
    ),
    batch=st.integers(1, 4),
)
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_files_of_any_times_that_come_in_any_order_are_each_read_once(
    tmp_path_factory: pytest.TempPathFactory, arrivals: list[tuple[list[tuple[int, int]], int, bool]], batch: int
) -> None:
    """A list of (modification time, tick of the clock within the moment) comes at each moment; then polls, and a restart or none."""
    folder = tmp_path_factory.mktemp("in")
    came: dict[str, int] = {}

    def one(_root: Root, name: str, _folder: int) -> Seen | None:
        path = folder / name
        status = path.stat()
        return Seen(
            path.name, str(path), status.st_dev, status.st_ino, status.st_mtime_ns, came[path.name], status.st_size
        )

    with pytest.MonkeyPatch.context() as patch:
        # A few files are many here, and when each came is what the test says.
        patch.setattr(progress, "FOLLOWED", 2)
        patch.setattr("connectors.file.source.MOST_FOLLOWED", 5)
        patch.setattr(Root, "seen", one)
        run = Run(await opened(folder, pattern="*.csv", later=LONG, batch=batch))
        for moment, (files, polls, restarts) in enumerate(arrivals):
            for mtime, tick in files:
                name = f"{len(came)}.csv"
                (folder / name).write_text(f"n\n{len(came)}\n")
                os.utime(folder / name, (mtime, mtime))
                came[name] = (moment * 10 + tick) * 10**9
            if restarts:
                run.source = await opened(folder, pattern="*.csv", later=LONG, batch=batch)
            for _ in range(polls):
                await run.poll()
        await run.drain()
        assert sorted(map(int, numbers(run))) == list(range(len(came)))
        assert run.position is None or len(run.position["files"]) <= 5


async def test_a_folder_of_many_files_keeps_a_small_position_and_reads_none_twice(tmp_path: Path) -> None:
    for number in range(400):
        (tmp_path / f"{number:03}.csv").write_text(f"n\n{number}\n")
        os.utime(tmp_path / f"{number:03}.csv", (1000 + number % 7, 1000 + number % 7))
    run = await started(tmp_path, pattern="*.csv", later=LONG, batch=13)
    await run.drain()
    assert sorted(map(int, numbers(run))) == list(range(400))
    assert len(json.dumps(run.position)) < 6 * 1024
    again = Run(await opened(tmp_path, pattern="*.csv", later=LONG), run.position)
    assert await again.drain() == []


async def test_files_that_are_still_fresh_hold_back_new_ones_and_none_is_lost(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number:03}.csv").write_text(f"n\n{number}\n")
    run = await started(tmp_path, pattern="*.csv")
    await run.drain()
    assert 0 < len(run.events) < 300
    run.source.clock = (await opened(tmp_path, pattern="*.csv", later=LONG)).clock
    for _ in range(3):
        await run.drain()
    assert sorted(map(int, numbers(run))) == list(range(300))


async def test_a_file_that_is_still_changing_is_left_alone_until_it_settles(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("n\n1\n")
    run = await started(tmp_path, pattern="*.csv", settle="30s")
    assert await run.drain() == []
    run.source.clock = (await opened(tmp_path, pattern="*.csv", later=31)).clock
    assert len(await run.drain()) == 1


async def test_a_json_document_is_not_judged_before_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"n": "1"}')
    run = await started(tmp_path, pattern="*.json", format="json", later=5.0)
    await run.drain()
    assert (run.events, run.rejected) == ([], [])
    path.write_text('[{"n": "1"}]')
    await run.drain()
    assert numbers(run) == ["1"]
    path.write_text('[{"n": "1"}, {"n": "2"}]')
    await run.drain()
    assert numbers(run) == ["1", "1", "2"]


async def test_a_growing_gzip_file_is_read_without_beginning_again(tmp_path: Path) -> None:
    path = tmp_path / "a.csv.gz"
    whole = gzip.compress(b"n\n" + b"".join(b"%d\n" % number for number in range(5000))) + gzip.compress(b"end\n")
    path.write_bytes(whole[:4000])
    run = await started(path, later=5.0)
    await run.drain()
    first = len(run.events)
    path.write_bytes(whole)
    await run.drain()
    assert 0 < first < 5001
    assert numbers(run) == [*map(str, range(5000)), "end"]
    assert run.rejected == []


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
async def test_done_files_are_moved_only_after_all_of_them_is_committed(tmp_path: Path, name: str) -> None:
    done = tmp_path / "done"
    rows = b"n\n" + b"".join(b"%d\n" % number for number in range(10))
    (tmp_path / name).write_bytes(gzip.compress(rows) if name.endswith(".gz") else rows)
    config: dict[str, Any] = {"pattern": "*.csv*", "when_done": "move", "move_to": str(done), "batch": 4, "later": LONG}
    source = await opened(tmp_path, **config)
    position = None
    for _ in range(5):
        position = (await source.poll("0", position)).position
    assert (tmp_path / name).exists()
    assert position is not None
    await source.committed("0", position)
    await source.committed("0", position)
    assert [file.name for file in done.iterdir()] == [name]
    (tmp_path / name).write_bytes((done / name).read_bytes())  # the same content, sent again
    run = Run(source, position)
    await run.drain()
    assert len(run.events) == 10
    assert sorted(file.name for file in done.iterdir()) == [name, f"{name}.1"]


async def test_what_a_killed_run_had_no_time_to_delete_is_deleted_at_the_next_start(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n\n1\n")
    config: dict[str, Any] = {"pattern": "*.csv", "when_done": "delete", "later": LONG}
    source = await opened(tmp_path, **config)
    batch = await source.poll("0", None)
    run = Run(await opened(tmp_path, **config), batch.position)
    assert await run.drain() == []
    assert not path.exists()


async def test_a_file_that_is_still_written_to_is_not_moved(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n\n1\n")
    run = await started(tmp_path, pattern="*.csv", when_done="delete")
    await run.drain()
    assert path.exists()


async def test_a_copy_on_another_inode_goes_on_where_the_original_stood(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("n\n1\n2\n")
    run = await started(tmp_path, pattern="*.csv", batch=1)
    await run.poll()
    shutil.copy2(path, tmp_path / "copy")
    path.unlink()
    (tmp_path / "copy").rename(path)
    resumed = Run(await opened(tmp_path, pattern="*.csv"), run.position)
    await resumed.drain()
    assert numbers(run) + numbers(resumed) == ["1", "2"]


CELL = st.text(st.sampled_from('ab,"\n\r é€;\\'), max_size=6)
ROWS = st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS, batch=st.integers(1, 7), packed=st.booleans(), cut=st.integers(0, 400))
async def test_killed_at_every_position_the_source_gives_what_one_pass_gives(
    tmp_path: Path, rows: list[list[str]], batch: int, packed: bool, cut: int
) -> None:
    text = io.StringIO(newline="")
    for row in [["n", "m"], *rows]:
        # A carriage return outside quotes is no CSV; csv.writer of some Python versions leaves it there.
        quoting = csv.QUOTE_ALL if "\r" in "".join(row) else csv.QUOTE_MINIMAL
        csv.writer(text, lineterminator="\n", quoting=quoting).writerow(row)
    content = text.getvalue().encode()
    path = tmp_path / ("x.csv.gz" if packed else "x.csv")
    for old in tmp_path.iterdir():
        old.unlink()
    path.write_bytes(gzip.compress(content) if packed else content)
    expected = list(csv.reader(io.StringIO(content.decode(), newline=""), strict=True))[1:]
    one_pass = await started(path, watch=False)
    await one_pass.drain_finite()
    assert [list(value.values()) for value in one_pass.values] == [
        [cell or None for cell in row] for row in expected if row
    ]
    assert one_pass.rejected == []
    killed: list[Any] = []
    position: Any = None
    for _ in range(200):
        batch_found = await (await opened(path, watch=False, batch=batch)).poll("0", position)
        killed += batch_found.events
        position = json.loads(json.dumps(batch_found.position))
        if batch_found.finished:
            break
    assert [(event.id, event.value, event.place, event.raw) for event in killed] == [
        (event.id, event.value, event.place, event.raw) for event in one_pass.events
    ]
    # Seen first half-written, then whole: the same rows again.
    if not packed:
        path.write_bytes(content[:cut])
        growing = await started(path)
        await growing.drain()
        with path.open("ab") as file:
            file.write(content[cut:])
        await growing.drain()
        assert growing.values == one_pass.values


# --- how far it has come ---


async def test_a_file_source_tells_how_many_bytes_of_how_many_it_has_read(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text("id\n" + "".join(f"{number:07d}\n" for number in range(1000)))
    run = Run(await opened(path, batch=100, watch=False))
    shares = []
    for _ in range(10):
        progress = (await run.poll()).progress
        assert progress is not None
        assert (progress.total, progress.what) == (8003, "orders.csv")
        shares.append(progress.done)
    assert shares == [3 + 800 * (number + 1) for number in range(10)]
    resumed = Run(await opened(path, batch=100, watch=False), run.position)
    progress = (await resumed.poll()).progress
    assert progress is not None
    assert progress.share == 1.0


async def test_of_several_files_the_progress_is_that_of_all_and_names_the_one_at_hand(tmp_path: Path) -> None:
    for number, name in enumerate(("a.csv", "b.csv", "c.csv.gz")):
        content = ("id\n" + "".join(f"{row:07d}\n" for row in range(200))).encode()
        path = tmp_path / name
        path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
        os.utime(path, (1000 + number, 1000 + number))
    run = Run(await opened(tmp_path, pattern="*.csv*", batch=100, watch=False))
    seen, last = [], 0.0
    for _ in range(8):
        progress = (await run.poll()).progress
        assert progress is not None
        assert last <= progress.done <= progress.total
        last = progress.done
        seen.append(progress.what)
    assert seen[0] == "a.csv and 2 more"
    assert "c.csv.gz and 2 more" in seen
    assert last == progress.total


async def test_a_document_is_read_whole_and_has_no_progress(tmp_path: Path) -> None:
    path = tmp_path / "orders.json"
    path.write_text('[{"id": 1}]')
    assert (await Run(await opened(path, format="json", watch=False)).poll()).progress is None
