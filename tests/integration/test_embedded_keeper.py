"""What keeps the embedded broker running: whatever ends it is named, and it comes back by itself, at its address, with its data.

One broker of this module's own, on a small file system of its own where that can be mounted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import NewTopic
from prometheus_client import REGISTRY

from trunkline.bus.embedded import BrokerKeeper, EmbeddedKafka, keeper, measure, read_condition
from trunkline.bus.embedded.causes import cause_of, how_it_ended
from trunkline.bus.embedded.disk import LEAST_FREE
from trunkline.bus.embedded.names import jvm_names
from trunkline.cli.session import Session
from trunkline.core.errors import UnavailableError
from trunkline.kafkaclient import AdminClient

pytestmark = pytest.mark.kafka
DISK_BYTES = LEAST_FREE + 60_000_000
ODD = b"sp ace, \xc3\xbc \xff\n%d${x}'\""
"""A folder's name with everything that a locale, Java, Kafka or log4j could stumble over. The broker of this module has it too."""


def small_disk(folder: Path) -> str | None:
    """Mounts a file system of 160 MB on a folder. Why that can't be, where it can't."""
    if os.geteuid() != 0:
        return "only root can mount a file system"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    return mounted.stderr.strip() or "mount failed" if mounted.returncode else None


def fill(folder: Path, *, leave: int) -> Path:
    """A file that takes all room of a file system but `leave` bytes."""
    ballast, found = folder / "ballast", os.statvfs(folder)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - leave)
    return ballast


class Kept:
    """A broker and its keeper, which looks when a test says so."""

    def __init__(self, home: Path, no_disk: str | None) -> None:
        self.home, self.no_disk = home, no_disk
        self.broker = EmbeddedKafka(home)
        self.config = self.broker.start().client_config()
        self.keeper = BrokerKeeper(self.broker)
        self.topic = f"t{uuid.uuid4().hex}"
        admin = AdminClient(self.config)
        admin.create_topics([NewTopic(self.topic, 1, 1)])[self.topic].result(15)

    def kill(self) -> None:
        """SIGKILL, behind the keeper's back."""
        running = self.broker.running
        if running is not None and self.broker.is_alive:
            os.kill(running.pid, signal.SIGKILL)
            self.until(lambda: not self.broker.is_alive)

    def look(self) -> str | None:
        """One look; the code of what it found, None for a broker that runs."""
        self.keeper.look_safely()
        found = read_condition(self.home)
        return found.code if found is not None and found.state != "running" else None

    def until(self, holds: Callable[[], Any], seconds: float = 180) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, read_condition(self.home)
            time.sleep(0.05)  # what is waited for happens in other processes

    def values(self) -> list[bytes]:
        consumer = Consumer({**self.config, "group.id": "reader", "enable.auto.commit": False})
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(self.topic, 0), timeout=15)
            consumer.assign([TopicPartition(self.topic, 0, low)])
            found: list[bytes] = []
            while len(found) < high:
                found += [value[:8] for one in consumer.consume(high, timeout=5) if (value := one.value()) is not None]
            return found
        finally:
            consumer.close()


@pytest.fixture(scope="module")
def owned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    disk = tmp_path_factory.mktemp("disk")
    no_disk = small_disk(disk)
    kept = Kept(disk / os.fsdecode(ODD), no_disk)
    try:
        yield kept
    finally:
        kept.broker.kill()
        if no_disk is None:
            subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.fixture
def down(owned: Kept) -> Kept:
    """The broker, killed, whatever the test before did to it."""
    owned.kill()
    return owned


@pytest.fixture
def up(owned: Kept) -> Kept:
    """The broker, running again."""
    owned.until(lambda: owned.look() is None)
    return owned


def test_a_full_disk_is_named_with_what_is_needed_and_with_room_the_broker_is_back_and_nothing_is_lost(
    up: Kept,
) -> None:
    if up.no_disk is not None:
        pytest.skip(up.no_disk)
    acknowledged: list[int] = []
    producer = Producer(
        {**up.config, "acks": "all", "enable.idempotence": True, "log_level": 0, "error_cb": lambda _error: None}
    )
    ballast = fill(up.home.parent, leave=2_000_000)
    assert up.look() is None
    found = read_condition(up.home)
    assert found is not None
    assert (found.state, found.code) == ("running", "embedded.disk_low")

    sent = 0
    while up.broker.is_alive:
        for _ in range(20):
            payload = b"%08d" % sent + os.urandom(5000)
            producer.produce(
                up.topic,
                payload,
                on_delivery=lambda error, _message, number=sent: acknowledged.append(number) if error is None else None,
            )
            sent += 1
        producer.poll(0.05)
    assert up.look() == "embedded.disk_full"
    assert up.look() == "embedded.disk_full"
    with pytest.raises(UnavailableError) as refused:
        Session(home_option=str(up.home)).kafka()
    measure(up.home, up.config["bootstrap.servers"])
    assert refused.value.code == "embedded.disk_full"
    assert REGISTRY.get_sample_value("trunkline_embedded_broker_up") == 0
    assert REGISTRY.get_sample_value("trunkline_embedded_broker_fault", {"code": "embedded.disk_full"}) == 1
    assert (REGISTRY.get_sample_value("trunkline_embedded_disk_free_bytes") or 0) < LEAST_FREE
    assert f"free on the file system at {up.home.parent}" in refused.value.message
    assert "needs 100 MB" in refused.value.message
    ballast.unlink()
    (up.home / "broker.json").write_text("{", encoding="utf-8")
    (up.home / "kafka" / "ports.json").write_text("[]", encoding="utf-8")
    up.until(lambda: up.look() is None)
    assert producer.flush(60) == 0
    assert Session(home_option=str(up.home)).kafka().bootstrap == up.config["bootstrap.servers"]

    measure(up.home, up.config["bootstrap.servers"])
    assert REGISTRY.get_sample_value("trunkline_embedded_broker_up") == 1
    assert REGISTRY.get_sample_value("trunkline_embedded_broker_fault", {"code": "embedded.disk_full"}) is None
    assert len(acknowledged) == sent
    assert sorted(up.values()) == sorted(b"%08d" % number for number in range(sent))


@pytest.mark.slow
def test_a_broker_that_hangs_is_killed_in_the_end_and_back_at_its_address_whatever_became_of_its_notes(
    up: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, seconds in {
        "ASK_SECONDS": 0.0,
        "SILENT_SECONDS": 0.0,
        "ANSWER_SECONDS": 0.2,
        "HUNG_SECONDS": 0.5,
    }.items():
        monkeypatch.setattr(keeper, name, seconds)
    assert up.broker.running is not None
    os.kill(up.broker.running.pid, signal.SIGSTOP)
    seen: list[str | None] = []
    up.until(lambda: seen.append(up.look()) or not up.broker.is_alive)
    assert "embedded.silent" in seen
    (up.home / "broker.json").write_text("{", encoding="utf-8")
    (up.home / "kafka" / "ports.json").write_text("[]", encoding="utf-8")

    monkeypatch.undo()
    up.until(lambda: up.look() is None)

    assert up.broker.running is not None
    assert up.broker.running.bootstrap == up.config["bootstrap.servers"]
    assert Session(home_option=str(up.home)).kafka().bootstrap == up.config["bootstrap.servers"]


@contextlib.contextmanager
def taken_port(kept: Kept) -> Iterator[None]:
    host, port = kept.config["bootstrap.servers"].split(":")
    with socket.create_server((host, int(port))):
        yield


@contextlib.contextmanager
def moved_folder(kept: Kept) -> Iterator[None]:
    aside = kept.home.with_name("aside")
    kept.home.rename(aside)
    yield
    aside.rename(kept.home)


@contextlib.contextmanager
def emptied_data(kept: Kept) -> Iterator[None]:
    data, aside = kept.home / "kafka" / "data", kept.home / "aside"
    data.rename(aside)
    yield
    aside.rename(data)


@contextlib.contextmanager
def damaged_metadata(kept: Kept) -> Iterator[None]:
    meta = kept.home / "kafka" / "data" / "meta.properties"
    whole = meta.read_text()
    meta.write_text("version=1\n")
    yield
    meta.write_text(whole)


@contextlib.contextmanager
def something_else(_kept: Kept) -> Iterator[None]:
    def broken(_progress: object) -> None:
        raise RuntimeError("nobody foresaw this")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trunkline.bus.embedded.broker.ensure_jars", broken)
        yield


@pytest.mark.parametrize(
    ("obstacle", "code", "said"),
    [
        (taken_port, "embedded.port", "another program listens on 127.0.0.1:"),
        (moved_folder, "embedded.data_gone", "deleted, moved or replaced"),
        (emptied_data, "embedded.data_gone", "are not in"),
        (damaged_metadata, "embedded.damaged", "names no cluster.id"),
        (something_else, "embedded.start", "nobody foresaw this"),
    ],
    ids=lambda value: value.__name__ if callable(value) else None,
)
def test_what_keeps_it_down_is_named_and_the_keeper_goes_on(
    down: Kept,
    obstacle: Callable[[Kept], AbstractContextManager[None]],
    code: str,
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    down.keeper.retry_at_once()
    with obstacle(down):
        down.keeper.look_safely()
        trouble = down.keeper.trouble
        assert trouble is not None
        assert trouble.code == code, trouble
        assert said in trouble.message
        down.keeper.look_safely()
    assert down.keeper.state == "down"


def test_others_are_told_what_keeps_it_down_now_and_not_what_it_was_at_first(down: Kept) -> None:
    down.keeper.retry_at_once()
    with taken_port(down):
        assert down.look() == "embedded.port"
    with damaged_metadata(down):
        assert down.look() == "embedded.damaged"


async def test_the_keeper_survives_whatever_is_raised_and_ends_when_it_is_told(
    down: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def broken() -> None:
        looked.append(1)
        if len(looked) == 3:
            loop.call_soon_threadsafe(stop.set)
        raise (OSError(28, "No space left on device"), MemoryError(), KeyError("x"))[len(looked) % 3]

    monkeypatch.setattr(keeper, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(down.broker, "require_startable", broken)
    await asyncio.wait_for(down.keeper.keep(stop), 120)
    assert len(looked) >= 3
    assert read_condition(down.home) is None


def test_the_cause_in_a_log_is_one_line(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text(
        textwrap.dedent(
            """\
            2026-11-30T19:00:00,000 ERROR Old An error of the day before
            java.io.IOException: something else
            2026-11-30T20:34:28,300 INFO  LogManager Starting
            2026-11-30T20:34:28,432 ERROR LogDirFailureChannel Error while appending records to t-1 in dir /home/kafka/data
            org.apache.kafka.common.errors.KafkaStorageException: Error while appending
            \tat kafka.Kafka(Kafka.scala)
            Caused by: java.io.IOException: No space left on device
            \tat java.base/sun.nio.ch.FileDispatcherImpl.write0(Native Method)
            2026-11-30T20:34:28,533 ERROR LogManager Shutdown broker because all log dirs have failed
            """
        ),
        encoding="utf-8",
    )
    assert (
        cause_of([(tmp_path / "console.log", 0), (log, 0)])
        == "Error while appending records to t-1 in dir /home/kafka/data: No space left on device (IOException)"
    )
    assert how_it_ended(-9).startswith("was killed (SIGKILL)")


@pytest.mark.slow
@pytest.mark.parametrize("locale", ["C", "C.UTF-8", "de_DE.ISO-8859-1"])
@pytest.mark.parametrize("name", [b"sp ace \xc3\xbc", ODD, b"a,b:c;d=e", b"#!\\", b"/".join([b"x" * 200] * 15)])
def test_it_runs_in_a_folder_of_any_name_under_any_locale(tmp_path: Path, locale: str, name: bytes) -> None:
    program = """
        import sys
        from pathlib import Path
        from trunkline.bus.embedded import EmbeddedKafka, find_running
        home = Path(sys.argv[1])
        with EmbeddedKafka(home) as broker:
            assert find_running(home) == broker.running
            for file in ("data/meta.properties", "server.log"):
                print((home / "kafka" / file).exists())
    """
    plain = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), os.path.join(os.fsencode(tmp_path), name)],  # noqa: PTH118 (bytes)
        env={**os.environ, **plain},
        capture_output=True,
        check=False,
    )
    assert ended.stdout.decode().split() == ["True", "True"], ended.stderr.decode("utf-8", "replace")


def test_a_jvm_is_told_of_an_odd_folder_by_a_name_that_java_kafka_and_log4j_take_as_it_is(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(ODD)
    folder.mkdir()
    names = jvm_names(folder, folder)
    assert (names.in_kafka("data"), names.in_cache("jars", "a.jar")) == (
        "/proc/self/cwd/data",
        "/proc/self/cwd/cache/jars/a.jar",
    )
    assert (folder / "cache").resolve() == folder.resolve()
    assert jvm_names(tmp_path / "plain", tmp_path).kafka == str(tmp_path / "plain")


@pytest.mark.parametrize("full", [False, True], ids=["read-only", "full"])
def test_a_folder_that_can_not_take_a_broker_is_refused_by_name_before_anything_starts(
    tmp_path: Path, full: bool
) -> None:
    if (no_disk := small_disk(tmp_path)) is not None:
        pytest.skip(no_disk)
    try:
        if full:
            fill(tmp_path, leave=LEAST_FREE - 1)
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        with pytest.raises(UnavailableError) as refused:
            EmbeddedKafka(tmp_path / "home").start()
        assert refused.value.code == ("embedded.disk_full" if full else "embedded.home")
        assert ("100 MB free" if full else "Read-only file system") in refused.value.message
        assert refused.value.where == str(tmp_path / "home")
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
