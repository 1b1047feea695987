"""Stores of secrets that packages bring: asked in time, believed as long as what they said holds."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from typing import Any

import pytest

from tests.clock import Clock
from trunkline.bus.states import State
from trunkline.bus.worker.building.bench import Beginning
from trunkline.bus.worker.opening import Opened, Version
from trunkline.bus.worker.retrying import next_try
from trunkline.bus.worker.versions import Versions
from trunkline.core import secretstores
from trunkline.core.errors import ConfigurationError, TrunklineError, UnavailableError
from trunkline.core.redaction import MARK, redact
from trunkline.core.secret import Secret, marks_of, resolve_references, watched_references
from trunkline.core.secretstores import SecretStore, Stores, register_store
from trunkline.core.testing.stores import MemoryStore

KEY = "${shelf:shop#token}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock(1_000_000.0)
    monkeypatch.setattr(secretstores, "time", made)
    return made


@pytest.fixture
def shelf() -> Iterator[MemoryStore]:
    store = MemoryStore({"shop#token": "canary-on-the-shelf", "other": "canary-of-another"})
    register_store("shelf", store)
    yield store
    store.away = None


def test_a_store_is_asked_on_a_loop_of_its_own_and_its_values_are_secrets() -> None:
    threads = []

    class Asked(MemoryStore):
        async def resolve(self, path: str) -> tuple[str, float | None]:
            threads.append((threading.current_thread(), asyncio.get_running_loop()))
            return await super().resolve(path)

    register_store("asked", Asked({"a": "canary-that-was-asked-for", "b": "canary-b"}))
    assert Secret("${asked:a}").reveal() == "canary-that-was-asked-for"

    async def within_a_loop() -> str:
        return Secret("${asked:b}").reveal()

    assert asyncio.run(within_a_loop()) == "canary-b"
    assert redact("canary-that-was-asked-for") == MARK
    assert len(set(threads)) == 1
    assert threads[0][0] is not threading.main_thread()


def test_what_is_not_there_is_missing_and_may_have_a_default(shelf: MemoryStore) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Secret("${shelf:nothing}").reveal()
    assert (raised.value.code, "${shelf:nothing}" in str(raised.value)) == ("secret.missing", True)
    assert resolve_references("${shelf:nothing:-default}") == "default"


@pytest.mark.parametrize("fault", [OSError("canary-on-the-shelf refused"), RuntimeError("broken"), ValueError()])
def test_a_store_that_is_away_at_the_start_is_a_cause_of_its_own_that_is_tried_again(
    shelf: MemoryStore, fault: Exception
) -> None:
    Secret(KEY).reveal()  # so that the value is known, and blanked where the store's own error shows it
    register_store("shelf", shelf)
    shelf.away = fault
    with pytest.raises(UnavailableError) as raised:
        Secret(KEY).reveal()
    assert (raised.value.code, KEY in str(raised.value)) == ("secret.unavailable", True)
    assert "canary" not in str(raised.value)
    state, wait = next_try(raised.value, 1)
    assert (state, wait is not None and wait <= 4) == (State.RESTARTING, True)
    shelf.away = None
    assert Secret(KEY).reveal() == "canary-on-the-shelf"


def test_a_store_that_never_answers_is_given_up(shelf: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secretstores, "ANSWER_SECONDS", 0.01)

    async def never(_path: str) -> tuple[str, float | None]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(shelf, "resolve", never)
    with pytest.raises(UnavailableError, match=r"no answer in 0\.01 s"):
        Secret(KEY).reveal()


@pytest.mark.parametrize("answer", [None, ("a",), (b"bytes", None), ("x" * (1 << 21), None), "text"])
def test_a_store_that_answers_what_it_may_not_is_as_one_that_is_away(shelf: MemoryStore, answer: Any) -> None:
    class Wrong(SecretStore):
        async def resolve(self, path: str) -> tuple[str, float | None]:
            return answer  # type: ignore[no-any-return]

    register_store("wrong", Wrong())
    with pytest.raises(UnavailableError, match="does not answer"):
        Secret("${wrong:a}").reveal()


def test_a_value_with_an_end_is_fetched_again_before_it(shelf: MemoryStore, clock: Clock) -> None:
    shelf.expires_at = clock.now + 100
    first = marks_of([KEY])
    clock.now += 79
    assert (marks_of([KEY]), shelf.asked) == (first, 1)
    shelf.values["shop#token"] = "canary-that-followed"
    clock.now, shelf.expires_at = clock.now + 2, clock.now + 200
    assert marks_of([KEY]) != first
    assert Secret(KEY).reveal() == "canary-that-followed"
    assert redact("canary-on-the-shelf canary-that-followed") == f"{MARK} {MARK}"
    assert shelf.asked == 2


def test_while_a_store_is_away_its_last_value_is_used_until_it_ends(shelf: MemoryStore, clock: Clock) -> None:
    shelf.expires_at = clock.now + 100
    first = marks_of([KEY])
    shelf.away = OSError("down")
    clock.now += 99
    assert marks_of([KEY]) == first
    assert Secret(KEY).reveal() == "canary-on-the-shelf"
    clock.now += 2
    assert marks_of([KEY]) == {KEY: ""}
    with pytest.raises(UnavailableError, match="OSError: down"):
        Secret(KEY).reveal()


def test_a_value_without_an_end_is_asked_for_again_after_a_while(shelf: MemoryStore, clock: Clock) -> None:
    class Slow(MemoryStore):
        refresh = 60.0

    store = Slow({"a": "canary-one"})
    register_store("slow", store)
    first = marks_of(["${slow:a}"])
    store.values["a"] = "canary-two"
    clock.now += 59
    assert marks_of(["${slow:a}"]) == first
    clock.now += 2
    assert marks_of(["${slow:a}"]) != first


def test_who_is_on_an_event_loop_does_not_wait_for_what_is_known(shelf: MemoryStore) -> None:
    Secret(KEY).reveal()
    asked = shelf.asked

    async def at_work() -> str:
        return Secret(KEY).reveal()

    assert asyncio.run(at_work()) == "canary-on-the-shelf"
    assert shelf.asked == asked


def test_all_that_is_due_is_asked_for_at_once(shelf: MemoryStore) -> None:
    together = 0

    class Counting(MemoryStore):
        async def resolve(self, path: str) -> tuple[str, float | None]:
            nonlocal together
            together += 1
            while together < 3:
                await asyncio.sleep(0)
            return path, None

    register_store("counting", Counting({}))
    assert len(marks_of([f"${{counting:{name}}}" for name in "abc"])) == 3


def test_references_to_stores_are_watched(shelf: MemoryStore) -> None:
    assert watched_references({"a": f"x {KEY}", "b": "${env:NAME}"}) == {KEY}


def test_stores_are_found_by_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [EntryPoint("memory", f"{__name__}:ReadyStore", secretstores.GROUP), EntryPoint("lost", "no.such:X", "x")]
    monkeypatch.setattr(secretstores, "entry_points", lambda group: points if group == "trunkline.secrets" else [])
    stores = Stores()
    assert stores.schemes() == {"env", "file", "memory", "lost"}
    assert stores.read("memory", "x") == "canary x"
    with pytest.raises(TrunklineError, match="ModuleNotFoundError") as raised:
        stores.read("lost", "x")
    assert raised.value.code == "secret.unavailable"


class ReadyStore(SecretStore):
    """Found by its entry point."""

    async def resolve(self, path: str) -> tuple[str, float | None]:
        return f"canary {path}", time.time() + 60


@pytest.mark.parametrize("scheme", ["env", "file", "Vault", "a-b", "a1", ""])
def test_a_store_has_a_name_that_a_reference_can_have(scheme: str) -> None:
    with pytest.raises(ConfigurationError):
        register_store(scheme, MemoryStore({}))


def test_a_forked_process_asks_for_itself(shelf: MemoryStore) -> None:
    Secret(KEY).reveal()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, Secret("${shelf:other}").reveal().encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as heard:
        assert heard.read() == b"canary-of-another"
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


async def test_a_pipeline_whose_store_is_away_is_not_opened_and_says_why(shelf: MemoryStore) -> None:
    opened = []

    async def open_(_beginning: Beginning) -> Opened:
        opened.append(Secret(KEY).reveal())
        raise ConfigurationError("it was opened")

    version = Version("one", open_, frozenset({KEY}))
    versions = Versions(
        "out",
        version,
        Beginning(),
        runs=lambda: True,
        make_room=lambda: None,
        cautious=lambda: False,
        changed=lambda: None,
    )
    register_store("shelf", shelf)
    shelf.away = OSError("down")
    with pytest.raises(UnavailableError, match="down") as raised:
        await versions.next()
    assert (raised.value.code, opened) == ("secret.unavailable", [])
    shelf.away = None
    with pytest.raises(ConfigurationError, match="it was opened"):
        await versions.next()
    assert opened == ["canary-on-the-shelf"]
