"""The deliveries whose window is open, as they are kept in memory."""

from __future__ import annotations

import tracemalloc

from trunkline.bus.source.deliveries import SHELVES, Windows


def keys(count: int) -> list[bytes]:
    return [f"hooks/{number:040x}".encode() for number in range(count)]


def test_a_key_is_known_until_its_window_ends_and_a_later_window_replaces_it() -> None:
    windows = Windows()
    windows.keep(b"a", 100.0)
    windows.keep(b"b", 200.0)
    windows.keep(b"a", 300.0)
    assert [windows.until(key) for key in (b"a", b"b", b"c")] == [300.0, 200.0, 0.0]
    assert len(windows) == 2


def test_a_sweep_forgets_what_ended_and_nothing_else() -> None:
    windows, known = Windows(), keys(20_000)
    for number, key in enumerate(known):
        windows.keep(key, float(number))
    for shelf in range(SHELVES):
        windows.sweep(shelf, 9_999.0)
    assert len(windows) == 10_000
    assert [windows.until(key) for key in known] == [0.0] * 10_000 + [float(number) for number in range(10_000, 20_000)]


def test_a_digest_that_lies_across_two_entries_is_not_taken_for_one() -> None:
    windows = Windows()
    shelf, short = windows._place(b"a")
    shelf += b"\1" * 5 + short + b"\1" * 27
    assert windows.until(b"a") == 0.0
    windows.keep(b"a", 5.0)
    assert windows.until(b"a") == 5.0


def test_a_delivery_costs_less_than_forty_bytes_of_memory() -> None:
    known = keys(200_000)
    tracemalloc.start()
    try:
        windows = Windows()
        for key in known:
            windows.keep(key, 1.0)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(windows) == len(known)
    assert taken < 40 * len(known)
