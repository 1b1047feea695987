"""Whether this machine has what Trunkline needs: each check says what it found and what to do."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from trunkline.bus.kafka import KafkaSettings
from trunkline.control.addresses import address
from trunkline.core.errors import TrunklineError
from trunkline.core.plugins import GROUPS, load_plugin, plugin_names

LEAST_PYTHON = (3, 11)


class Level(StrEnum):
    """How grave it is: WARN takes something away, FAIL keeps Trunkline from working."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    level: Level
    what: str
    found: str
    hint: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """The finding as data."""
        return {"level": str(self.level), "check": self.what, "found": self.found, "hint": self.hint}


@dataclass(frozen=True, slots=True)
class Machine:
    """What is examined. `connect` gives a cluster that answers, `registry` the registry's URL, if there is one; both raise."""

    home: Path
    embedded: bool
    """Whether the broker is the embedded one of the home folder."""
    connect: Callable[[], KafkaSettings]
    registry: Callable[[], str | None]
    registry_options: Mapping[str, Any]
    addresses: Mapping[str, str | None]
    """Where a worker is to listen, by option; None for a free port."""


def examine(machine: Machine) -> Iterator[Finding]:
    """Every finding, in the order in which a start would need it."""
    yield _python()
    yield _guarded("Java", lambda: _java(needed=machine.embedded), Level.FAIL if machine.embedded else Level.WARN)
    yield _guarded("Kafka's jars", _jars, Level.WARN)
    yield _disk(machine.home)
    for option, text in machine.addresses.items():
        yield _port(option, text)
    yield _guarded("broker", lambda: _broker(machine), Level.FAIL)
    yield _guarded("registry", lambda: _registry(machine), Level.FAIL)
    yield _plugins()
    yield _sshd()


def _guarded(what: str, check: Callable[[], Finding], level: Level) -> Finding:
    try:
        return check()
    except TrunklineError as error:
        return Finding(level, what, error.message.splitlines()[0], error.hint)


def _python() -> Finding:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < LEAST_PYTHON:
        return Finding(Level.FAIL, "Python", found, "Trunkline needs 3.11 or newer")
    return Finding(Level.OK, "Python", found)


def _java(*, needed: bool) -> Finding:
    from trunkline.bus.embedded.java import find_java, java_version

    java = find_java()
    return Finding(
        Level.OK, "Java", f"{java_version(java)} at {java}" + ("" if needed else " (not needed for this broker)")
    )


def _jars() -> Finding:
    from trunkline.bus.embedded.jars import cache_folder, read_lock

    folder = cache_folder() / "jars"
    missing = [jar for jar in read_lock() if not (folder / jar.filename).exists()]
    if missing:
        size = sum(jar.size for jar in missing) / 1e6
        return Finding(
            Level.WARN, "Kafka's jars", f"{len(missing)} are not there", f"the next start downloads {size:.0f} MB"
        )
    return Finding(Level.OK, "Kafka's jars", f"all in {folder}")


def _disk(home: Path) -> Finding:
    from trunkline.bus.embedded.disk import room_at

    folder = next((one for one in (home.resolve(), *home.resolve().parents) if one.exists()), Path("/"))
    if not os.access(folder, os.W_OK):
        return Finding(
            Level.FAIL, "disk", f"{folder} can't be written", "choose another folder by --home or TRUNKLINE_HOME"
        )
    room = room_at(folder)
    level = Level.OK if not room.little else Level.WARN if room.least else Level.FAIL
    return Finding(level, "disk", str(room), None if level is Level.OK else "make room, or choose another --home")


def _port(option: str, text: str | None) -> Finding:
    """Whether an address can be listened on; without one a free port is taken."""
    what = f"port of {option}"
    if text is None:
        return Finding(Level.OK, what, "a free one is taken")
    try:
        host, port = address(text, option)
    except TrunklineError as error:
        return Finding(Level.FAIL, what, error.message, error.hint)
    try:
        with socket.create_server((host, port)):
            return Finding(Level.OK, what, f"{text} is free")
    except OSError as error:
        return Finding(
            Level.WARN, what, f"{text}: {error.strerror}", "a worker that runs already, or choose another address"
        )


def _broker(machine: Machine) -> Finding:
    from trunkline.bus.embedded import broker_trouble, find_running

    running = find_running(machine.home.resolve()) if machine.embedded else None
    if machine.embedded and running is None:
        trouble = broker_trouble(machine.home)
        if trouble is not None:
            raise trouble
        return Finding(Level.WARN, "broker", f"none runs in {machine.home}", "`trunkline up` starts one")
    kafka = machine.connect()
    if running is not None and running.is_open:
        return Finding(
            Level.WARN,
            "broker",
            f"answers at {kafka.bootstrap}, and is OPEN: every program and user of this machine may do everything",
            "start it without --open, and without TRUNKLINE_OPEN",
        )
    return Finding(Level.OK, "broker", f"answers at {kafka.bootstrap}")


def _registry(machine: Machine) -> Finding:
    from trunkline.registry.client import RegistryClient

    url = machine.registry()
    if url is None:
        return Finding(
            Level.WARN,
            "registry",
            "none was named and no worker serves one here",
            "`trunkline up` serves one; --registry names another",
        )
    client = RegistryClient(url, machine.registry_options)
    try:
        return Finding(Level.OK, "registry", f"{len(client.subjects())} subjects at {url.rpartition('@')[2]}")
    finally:
        client.close()


def _plugins() -> Finding:
    missing = []
    for kind in GROUPS:
        for name in plugin_names(kind):
            try:
                load_plugin(kind, name)
            except TrunklineError as error:
                missing.append(f"{name}: {error.message}")
    if missing:
        return Finding(Level.WARN, "plug-ins", "; ".join(missing), "install the extras, or trunkline[all]")
    count = sum(len(entry_points(group=group)) for group in GROUPS.values())
    return Finding(Level.OK, "plug-ins", f"{count} load")


def _sshd() -> Finding:
    found = shutil.which("sshd") or next((path for path in ("/usr/sbin/sshd",) if Path(path).exists()), None)
    if found is None:
        return Finding(
            Level.WARN, "sshd", "not installed", "only tests of SFTP against OpenSSH need it: openssh-server"
        )
    return Finding(Level.OK, "sshd", found)
