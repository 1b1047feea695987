"""Kafka's storage in the home folder: formatted once, and never formatted again over what is there."""

from __future__ import annotations

import base64
import secrets
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from trunkline.bus.embedded.causes import FULL, cause_of
from trunkline.bus.embedded.disk import FULL_CODE
from trunkline.bus.embedded.names import for_people, jvm_environment
from trunkline.core.errors import UnavailableError

_FORMAT_TIMEOUT = 60
_META = "meta.properties"


def new_cluster_id() -> str:
    """A random Kafka cluster id: 16 bytes in URL-safe base64, 22 characters.

    One that begins with "-" is not used: Kafka's own tools take it for an option.
    """
    while True:
        cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        if not cluster_id.startswith("-"):
            return cluster_id


def stored_cluster_id(kafka: Path) -> str | None:
    """The id of the cluster whose data are here; None where there are no data.

    Raises `UnavailableError` (`embedded.damaged`) where there are data and nothing says whose, and OSError.
    """
    data = kafka / "data"
    meta = data / _META
    if not meta.exists():
        if data.exists() and any(one.is_dir() for one in data.iterdir()):
            raise _damaged(meta, "is missing, and the folder is not empty")
        return None
    pairs = (line.partition("=") for line in meta.read_text(encoding="utf-8", errors="replace").splitlines())
    found = next((value.strip() for name, _, value in pairs if name.strip() == "cluster.id"), "")
    if not found:
        raise _damaged(meta, "names no cluster.id")
    return found


def require_same_cluster(kafka: Path, promised: str) -> None:
    """That the data are those of the cluster that ran until now. A new one in their place would look like a bus that lost nothing.

    Raises `UnavailableError` (`embedded.data_gone`, `embedded.damaged`), OSError.
    """
    found = stored_cluster_id(kafka)
    if found != promised:
        raise data_gone(kafka.parent, f"the data of the cluster {promised} are not in {kafka / 'data'} any more")


def data_gone(home: Path, what: str) -> UnavailableError:
    """That the folder of a running broker was deleted, moved or replaced."""
    return UnavailableError(
        f"{what}: the embedded broker was ended, because what it took would be lost",
        where=str(home),
        hint="put the folder back, and it goes on; to begin with an empty broker end this command and start it again",
        code="embedded.data_gone",
    )


def format_storage(command: Callable[..., Sequence[str]], kafka: Path, config: str) -> str:
    """Formats the storage with a new cluster id, which it returns. `command` makes a JVM's command line. Raises `UnavailableError`."""
    cluster_id, console = new_cluster_id(), kafka / "format.log"
    arguments = ["format", "--cluster-id", cluster_id, "--config", config, "--ignore-formatted"]
    with console.open("wb") as said:
        try:
            subprocess.run(  # noqa: S603 - our own command line
                command("kafka.tools.StorageTool", *arguments),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                timeout=_FORMAT_TIMEOUT,
                cwd=kafka,
                env=jvm_environment(),
                check=True,
            )
        except subprocess.SubprocessError as error:
            late = isinstance(error, subprocess.TimeoutExpired)
            cause = f"it took longer than {_FORMAT_TIMEOUT} s" if late else for_people(cause_of([(console, 0)]), kafka)
            raise UnavailableError(
                f"Kafka's storage can't be formatted: {cause or error}",
                where=str(console),
                hint="the whole log is there",
                code=FULL_CODE if any(sign in cause for sign in FULL) else "embedded.format",
            ) from error
    return cluster_id


def _damaged(meta: Path, what: str) -> UnavailableError:
    return UnavailableError(
        f"Kafka's file {meta} {what}: whose data these are is not known, so the broker is not started on them",
        where=str(meta.parent),
        hint="put the file back from a copy, or begin anew in another folder by --home",
        code="embedded.damaged",
    )
