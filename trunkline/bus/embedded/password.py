"""The password by which our own clients sign in to the embedded broker, and the folders that only its user may look into.

It is random, made at the first start, and kept over restarts, since clients that wait for a broker to come back know no other. The
broker reads it from its configuration at each start, so nothing has to be written anywhere else before it holds.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import stat
from pathlib import Path

from trunkline.bus.embedded.running import write_private
from trunkline.core.log import get_logger
from trunkline.core.redaction import learn

log = get_logger(__name__)
FILE = "password"
_BYTES = 32
_FORM = re.compile(r"[A-Za-z0-9_-]{43}")


def kept_password(kafka: Path, known: str | None = None) -> str:
    """The password in the folder `kafka`; a new one where there is none that only this user can have read.

    `known` is the one that clients of a broker that runs again were given: it stays, and its file is written again where somebody
    damaged it. Raises OSError.
    """
    file = kafka / FILE
    found = _read(file)
    if known is not None:
        if found != known:
            write_private(file, known + "\n")
        return known
    if found is None:
        found = secrets.token_urlsafe(_BYTES)
        write_private(file, found + "\n")
    learn(found)
    return found


def _read(file: Path) -> str | None:
    """What the file holds; None where it is missing, damaged, or may have been read or written by somebody else."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        log.warning(
            "the embedded broker's password can't be read: there is a new one", file=str(file), reason=str(error)
        )
        return None
    with open(opened, "rb") as stream:  # noqa: PTH123 (it is open)
        state = os.fstat(stream.fileno())
        text = stream.read(256).decode("ascii", "replace").strip() if stat.S_ISREG(state.st_mode) else ""
    if _FORM.fullmatch(text) is None:
        log.warning("the embedded broker's password was damaged: there is a new one", file=str(file))
        return None
    if state.st_mode & (stat.S_IRWXG | stat.S_IRWXO) or state.st_uid != os.geteuid():
        log.warning("others could read the embedded broker's password: there is a new one", file=str(file))
        return None
    return text


def keep_to_oneself(folder: Path) -> None:
    """Takes the rights of others on a folder away, as older versions gave them. Raises OSError.

    A folder that is not for Trunkline alone (a shared one, the user's own, the working directory) or is somebody else's stays as it is,
    with a warning: the files in it have their own rights, but others may put files in their place.
    """
    found = folder.stat()
    if not found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return
    shared = found.st_mode & (stat.S_ISVTX | stat.S_ISGID) or folder in {Path.cwd(), Path(os.path.expanduser("~"))}  # noqa: PTH111 (never raises)
    if not shared and found.st_uid == os.geteuid():
        with contextlib.suppress(PermissionError):  # a file system without rights
            folder.chmod(stat.S_IMODE(found.st_mode) & ~(stat.S_IRWXG | stat.S_IRWXO))
            return
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        log.warning(
            "others may write to the home folder of the embedded broker",
            home=str(folder),
            hint="choose a folder that only this user can write, by --home or TRUNKLINE_HOME",
            code="embedded.shared_home",
        )
