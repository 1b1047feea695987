"""A process with librdkafka's mock cluster of three brokers, of which one after another can be made deaf.

Run as a program: prints the brokers' addresses, then closes the listening port of each number that it reads.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


class ThreeBrokers:
    """The cluster, and its addresses."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._to, self._from = process.stdin, process.stdout
        self.addresses: list[str] = json.loads(self._answer())

    @property
    def bootstrap(self) -> str:
        """All of its addresses."""
        return ",".join(self.addresses)

    def deafen(self, number: int) -> str:
        """Nobody can connect to a broker any more; connections that stand go on. Gives its address."""
        address = self.addresses[number]
        assert self._to is not None
        print(address.rpartition(":")[2], file=self._to, flush=True)
        assert self._answer().strip() == "closed"
        return address

    def _answer(self) -> str:
        assert self._from is not None
        return self._from.readline()


@contextmanager
def three_brokers() -> Iterator[ThreeBrokers]:
    """Runs them."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, __file__], text=True, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield ThreeBrokers(process)
        finally:
            process.kill()


def _serve(commands: IO[str]) -> None:
    from confluent_kafka import Producer

    cluster = Producer({"bootstrap.servers": "none:1", "test.mock.num.brokers": 3, "log_level": 0})
    brokers = [broker for number, broker in sorted(cluster.list_topics(timeout=20).brokers.items()) if number > 0]
    print(json.dumps([f"{broker.host}:{broker.port}" for broker in brokers]), flush=True)
    for line in commands:
        _close(int(line))
        print("closed", flush=True)


def _close(port: int) -> None:
    """Puts another file in the place of the socket that listens on a port (proc(5): state 0A is LISTEN)."""
    lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()[1:]]
    socket = next(one[9] for one in lines if one[3] == "0A" and int(one[1].rpartition(":")[2], 16) == port)
    for link in Path("/proc/self/fd").iterdir():
        if link.is_symlink() and str(link.readlink()) == f"socket:[{socket}]":
            os.dup2(os.open(os.devnull, os.O_RDONLY), int(link.name))


if __name__ == "__main__":
    _serve(sys.stdin)
