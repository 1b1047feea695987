"""Finding broker processes of ours, and ending them, without ever touching another process.

A broker is ours when its command line has the argument `-Dtrunkline.home=<folder>` and starts with a `java`. That holds
however its parent died, and a process that got its number later can't pass for it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from pathlib import Path

from trunkline.core.errors import UnavailableError

_HAS_PROC = Path("/proc/self/cmdline").exists()


_MARK = "-Dtrunkline.home="
_LISTED = re.compile(rb"\S*java\S* " + re.escape(_MARK.encode()) + rb"(.*?) @", re.DOTALL)


def marker(home: Path) -> str:
    """The argument by which a broker of this folder is known."""
    return f"{_MARK}{home.resolve()}"


def homes_of_this_user() -> set[Path]:
    """The folders in which this user's brokers run."""
    if not _HAS_PROC:
        user = str(os.geteuid())
        listing = subprocess.run(["/bin/ps", "-ww", "-U", user, "-o", "command="], capture_output=True, check=False)  # noqa: S603 (a number)
        found = [_LISTED.match(line) for line in listing.stdout.splitlines()]
        return {Path(os.fsdecode(one[1])) for one in found if one is not None}
    homes = set()
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or not _is_own(entry):
            continue
        arguments = _arguments(int(entry.name))
        marks = [one.removeprefix(_MARK.encode()) for one in arguments[1:] if one.startswith(_MARK.encode())]
        if len(marks) == 1 and _is_broker(arguments, _MARK.encode() + marks[0]):
            homes.add(Path(os.fsdecode(marks[0])))
    return homes


def _is_own(entry: Path) -> bool:
    try:
        return entry.stat().st_uid == os.geteuid()
    except OSError:
        return False


def find_brokers(home: Path) -> list[int]:
    """The ids of all running brokers of this folder."""
    sign = os.fsencode(marker(home))
    if _HAS_PROC:
        return [
            int(entry.name)
            for entry in Path("/proc").iterdir()
            if entry.name.isdigit() and _is_broker(_arguments(int(entry.name)), sign)
        ]
    # As bytes, and by the whole sign: a folder's name may have blanks, and bytes that are no text.
    listing = subprocess.run(["/bin/ps", "-axww", "-o", "pid=,command="], capture_output=True, check=True)
    rows = [line.split(maxsplit=1) for line in listing.stdout.splitlines()]
    return [int(row[0]) for row in rows if len(row) == 2 and b"java" in row[1] and b" %b @" % sign in row[1]]


def is_broker(pid: int, home: Path) -> bool:
    """Whether this process is running and is a broker of this folder."""
    if _HAS_PROC:
        return _is_broker(_arguments(pid), os.fsencode(marker(home)))
    return pid in find_brokers(home)


def _is_broker(arguments: list[bytes], sign: bytes) -> bool:
    return bool(arguments) and os.path.basename(arguments[0]).startswith(b"java") and sign in arguments[1:]  # noqa: PTH119 (bytes)


def _arguments(pid: int) -> list[bytes]:
    """The command line of a process; empty for one that is gone, dead but not reaped, or not ours to read."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return []


def end_broker(pid: int, home: Path, timeout: float) -> None:
    """Ask a broker of this folder to stop, and kill it after `timeout` seconds. One that is gone already is fine."""
    if not _send(pid, home, signal.SIGTERM) or wait_gone(pid, home, timeout):
        return
    _send(pid, home, signal.SIGKILL)
    if not wait_gone(pid, home, 10):
        raise UnavailableError(f"the broker process {pid} does not end, not even killed", code="embedded.orphan")


def _send(pid: int, home: Path, sign: signal.Signals) -> bool:
    if not is_broker(pid, home):
        return False
    try:
        os.kill(pid, sign)
    except ProcessLookupError:
        return False
    except PermissionError as error:
        raise UnavailableError(
            f"a broker of another user runs in this folder as process {pid}",
            where=str(home),
            hint="use another folder by TRUNKLINE_HOME",
            code="embedded.in_use",
        ) from error
    return True


def wait_gone(pid: int, home: Path, timeout: float) -> bool:
    """Wait until this broker has ended, whosever child it is; False when it still runs after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    if hasattr(os, "pidfd_open"):
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return not is_broker(pid, home)
        try:
            return bool(select.select([descriptor], [], [], timeout)[0])
        finally:
            os.close(descriptor)
    while is_broker(pid, home):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
