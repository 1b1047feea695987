"""Ending the registration that a killed broker left with its controller, so that a long session costs no start-up.

A node whose broker says nothing for `broker.session.timeout.ms` is fenced: its partitions have no leader until it is heard again.
For a single node that is worse than useless. After a pause of the JVM its transaction coordinator, woken together with the
controller, may end transactions in just that moment, finds no leader to write their markers to, and takes the partitions for
deleted: readers of committed records then wait behind these transactions for ever (seen with Kafka 4.3.1 after ten seconds of
SIGSTOP). So the session is longer than any pause (`properties.py`). But a broker that was killed may register again only when its
former session has ended (KIP-631): a controller alone, with a session of a tenth of a second, sees to that before the start.

That is awaited in what Kafka writes, never for a length of time: what a slow machine has not done by then would keep the broker
from registering for the length of its session.
"""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trunkline.bus.embedded.names import jvm_environment
from trunkline.bus.embedded.properties import NODE_ID, render_properties
from trunkline.bus.embedded.running import write_private

SESSION_MS = 100
IDLE_MS = 50
"""How often a controller without other work appends a record, which tells that those before it are in its log."""
_END_SECONDS = 5.0
_PAUSE = 0.02
_FILE = "controller.properties"
_METADATA = "__cluster_metadata-0"
_ACTIVE = b"Performing controller activation"
"""What Kafka's log says when the controller has read all of its metadata and begins to write."""
_REPLAYED = re.compile(
    rb"Replayed [^\n]*(?:RegisterBrokerRecord|BrokerRegistrationChangeRecord)[^\n]* for broker %d:"
    rb"[^\n]* fenced=(-?\w+)" % NODE_ID
)
"""What it says of each change of the broker's registration, also of those that it reads (Kafka's `ClusterControlManager`)."""
_FENCED = {b"true": True, b"1": True, b"false": False, b"-1": False}
"""The values of `fenced` in a registration, and in a change of one, where 0 leaves it as it is (`BrokerRegistrationChangeRecord.json`)."""
_BROKERS_ONLY = ("advertised.listeners", "inter.broker.listener.name")


def left_registered(kafka: Path) -> bool:
    """Whether the broker of this folder did not end in order. Kafka notes it in its data when it does."""
    data = kafka / "data"
    return (data / "meta.properties").exists() and not (data / ".kafka_cleanshutdown").exists()


def end_registration(
    command: Callable[[str], Sequence[str]],
    properties: Mapping[str, str],
    kafka: Path,
    log_file: Path,
    *,
    timeout: float,
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Runs the controller alone until the broker has no session, for at most `timeout` seconds and as long as that is `wanted`.

    `command` makes a JVM's command line from the name of a properties file in `kafka`. Raises OSError.
    """
    write_private(kafka / _FILE, render_properties(_controller_only(properties)))
    registration = _Registration(log_file, kafka / "data" / _METADATA)
    with (kafka / "controller.log").open("wb") as console:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            command(_FILE),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            cwd=kafka,
            env=jvm_environment(),
            start_new_session=True,
        )
    deadline = time.monotonic() + timeout
    try:
        while process.poll() is None and time.monotonic() < deadline and wanted() and not registration.has_ended():
            time.sleep(_PAUSE)
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class _Registration:
    """What the controller says of the broker's registration from now on."""

    def __init__(self, log_file: Path, metadata: Path) -> None:
        self._log_file = log_file
        self._metadata = metadata
        self._read = log_file.stat().st_size if log_file.exists() else 0
        self._active = False
        self._has_session = False
        self._size_when_fenced: int | None = None

    def has_ended(self) -> bool:
        """Whether the controller's log on disk has it that the broker has no session."""
        said = self._new_lines()
        self._active = self._active or _ACTIVE in said
        for fenced in _REPLAYED.findall(said):
            had_one, self._has_session = self._has_session, not _FENCED.get(fenced, not self._has_session)
            if had_one and not self._has_session:
                self._size_when_fenced = self._size()
        if not self._active or self._has_session:
            return False
        # Kafka says so before the record is in its log. What is there when another one has followed has not been lost with it.
        return self._size_when_fenced is None or self._size() > self._size_when_fenced

    def _new_lines(self) -> bytes:
        if not self._log_file.exists():
            return b""
        with self._log_file.open("rb") as opened:
            opened.seek(self._read)
            said = opened.read()
        whole = said[: said.rfind(b"\n") + 1]
        self._read += len(whole)
        return whole

    def _size(self) -> int:
        return sum(segment.stat().st_size for segment in self._metadata.glob("*.log"))


def _controller_only(properties: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in properties.items() if name not in _BROKERS_ONLY}
    listeners = [one for one in properties["listeners"].split(",") if one.startswith("CONTROLLER:")]
    return own | {
        "process.roles": "controller",
        "listeners": ",".join(listeners),
        "broker.session.timeout.ms": str(SESSION_MS),
        "metadata.max.idle.interval.ms": str(IDLE_MS),
    }
