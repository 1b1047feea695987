"""Ending the registration that a killed broker left with its controller, so that a long session costs no start-up.

A node whose broker says nothing for `broker.session.timeout.ms` is fenced: its partitions have no leader until it is heard again.
For a single node that is worse than useless. After a pause of the JVM its transaction coordinator, woken together with the
controller, may end transactions in just that moment, finds no leader to write their markers to, and takes the partitions for
deleted: readers of committed records then wait behind these transactions for ever (seen with Kafka 4.3.1 after ten seconds of
SIGSTOP). So the session is longer than any pause (`properties.py`). But a broker that was killed may register again only when its
former session has ended (KIP-631): a controller alone, with a session of a tenth of a second, sees to that before the start.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from trunkline.bus.embedded.names import jvm_environment
from trunkline.bus.embedded.properties import NODE_ID, render_properties
from trunkline.bus.embedded.running import write_private

SESSION_MS = 100
SETTLE_SECONDS = 3.0
"""The most that is waited for once the controller is up: a broker that was killed before it had registered leaves nothing to end."""
_END_SECONDS = 5.0
_PAUSE = 0.02
_FILE = "controller.properties"
_UP, _FENCED = b"Kafka Server started", f"Fencing broker {NODE_ID} ".encode()
"""What the controller's log says."""
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
    """Runs the controller alone until it has fenced the broker, for at most `timeout` seconds and as long as that is `wanted`.

    `command` makes a JVM's command line from the name of a properties file in `kafka`. Raises OSError.
    """
    write_private(kafka / _FILE, render_properties(_controller_only(properties)))
    begin = log_file.stat().st_size if log_file.exists() else 0
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
    up = False
    try:
        while process.poll() is None and time.monotonic() < deadline and wanted():
            said = _from(log_file, begin)
            if _FENCED in said:
                break
            if not up and _UP in said:
                up, deadline = True, min(deadline, time.monotonic() + SETTLE_SECONDS)
            time.sleep(_PAUSE)
    finally:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _controller_only(properties: Mapping[str, str]) -> dict[str, str]:
    own = {name: value for name, value in properties.items() if name not in _BROKERS_ONLY}
    listeners = [one for one in properties["listeners"].split(",") if one.startswith("CONTROLLER:")]
    return own | {
        "process.roles": "controller",
        "listeners": ",".join(listeners),
        "broker.session.timeout.ms": str(SESSION_MS),
    }


def _from(file: Path, begin: int) -> bytes:
    if not file.exists():
        return b""
    with file.open("rb") as opened:
        opened.seek(begin)
        return opened.read()
