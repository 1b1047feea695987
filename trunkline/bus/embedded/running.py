"""The broker that runs in a home folder: how another process finds it and connects to it."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from trunkline.bus.embedded.processes import homes_of_this_user, is_broker

FILE = "broker.json"
_LOOPBACK = {"127.0.0.1", "localhost"}


@dataclass(frozen=True, slots=True)
class RunningBroker:
    """A healthy embedded broker.

    `client_options` are the options of librdkafka that a client needs beside the bootstrap servers; they hold the password of our own
    clients, who may do everything, so they are in no representation of this object.
    """

    bootstrap: str
    pid: int
    cluster_id: str
    version: str
    client_options: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether it asks nobody who they are."""
        return "sasl.mechanism" not in self.client_options

    def client_config(self) -> dict[str, Any]:
        """A configuration for a confluent-kafka client with the administrator's rights."""
        return {"bootstrap.servers": self.bootstrap, **self.client_options}


def find_running(home: Path) -> RunningBroker | None:
    """The healthy broker of this folder, started by whichever process; None when none runs.

    A file left by a broker that was killed is not believed: the process must be alive and must be this folder's broker.
    """
    try:
        running = RunningBroker(**json.loads((home / FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return running if is_broker(running.pid, home) else None


def find_at(bootstrap: str) -> RunningBroker | None:
    """The embedded broker of this user that serves at this address, in whichever folder it runs; None where none does."""
    host, _, port = bootstrap.strip().rpartition(":")
    if host not in _LOOPBACK or not port.isascii() or not port.isdigit():
        return None
    for home in homes_of_this_user():
        running = find_running(home)
        if running is not None and running.bootstrap.rpartition(":")[2] == port:
            return running
    return None


def write_running(home: Path, running: RunningBroker) -> bool:
    """Announce the broker to other processes of this user; False where that is done already. Raises OSError."""
    file, told = home / FILE, json.dumps(asdict(running), indent=2) + "\n"
    if file.is_file() and file.read_bytes() == told.encode():
        return False
    if file.is_dir() and not file.is_symlink():
        file.rmdir()
    write_private(file, told)
    return True


def remove_running(home: Path) -> None:
    """Take the announcement back."""
    (home / FILE).unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, readable by its owner only. Names of files in it may have bytes that are no UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")  # mkstemp makes it 0600
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(text)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)  # on a full disk it would be one more file
        raise
