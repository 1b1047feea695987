"""`endpoint.json` in the home folder: where the worker that runs there can be asked."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path

FILE = "endpoint.json"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running worker. `ingress` is empty as long as no push source listens; `files` are those that it runs, none for the applied.

    `local` is where programs of this machine reach the API, and `registry` is its registry as they reach it. With `key` they sign in: the
    file is for its user alone.
    """

    pid: int
    bootstrap: str
    namespace: str
    api: str
    registry: str
    ingress: str = ""
    files: tuple[str, ...] = ()
    local: str = ""
    key: str = field(default="", repr=False)


def write_endpoint(home: Path, endpoint: Endpoint) -> None:
    """Announces a worker; whole or not at all."""
    from trunkline.bus.embedded.running import write_private

    write_private(home / FILE, json.dumps(asdict(endpoint), indent=2) + "\n")


def read_endpoint(home: Path) -> Endpoint | None:
    """The worker that runs in `home`; None where none was announced or its process is gone."""
    try:
        told = json.loads((home / FILE).read_text(encoding="utf-8"))
        found = Endpoint(**{**told, "files": tuple(told.get("files", ()))})
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return found if _is_alive(found.pid) else None


def remove_endpoint(home: Path) -> None:
    """Takes the announcement back, where it is this process's own. Without its process nobody believes what is left."""
    found = read_endpoint(home)
    if found is not None and found.pid == os.getpid():
        with contextlib.suppress(OSError):
            (home / FILE).unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
