"""Which variables and files a worker reads secrets from: its operator says so, not who writes manifests.

`TRUNKLINE_SECRET_ENV` has patterns of names, such as `SLACK_* SF_*`, separated by blanks or commas; `TRUNKLINE_SECRET_FILES` has folders,
separated as in `PATH`. Without them what is read by default is safe (`docs/adr/0030-secrets.md`):

* variables that are neither Trunkline's own nor known to be what the machine itself signs in with;
* files in `/run/secrets`, in the folder that systemd gives to a service, and in `secrets` where the worker was started.

Never read are `TRUNKLINE_…`, which holds the worker's own passwords, and files of the worker's data, of `/proc`, `/sys` and `/dev`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path

NAMES = "TRUNKLINE_SECRET_ENV"
FOLDERS = "TRUNKLINE_SECRET_FILES"
_OUR_NAMES = "TRUNKLINE_*"
_FOR_MANIFESTS = frozenset({"TRUNKLINE_MASK_KEY"})
"""Ours, and there to be named in manifests."""
_MACHINE = (
    "AWS_*",
    "AZURE_*",
    "ARM_*",
    "GCP_*",
    "GOOGLE_APPLICATION_CREDENTIALS",
    "CLOUDSDK_*",
    "CONSUL_*",
    "DOCKER_*",
    "KUBE*",
    "NOMAD_*",
    "VAULT_*",
    "SSH_*",
    "LD_*",
    "PYTHON*",
    "*_PROXY",
    "*_proxy",
)
"""What a machine signs in with, and what its programs are steered by: only where the operator names them."""
_DEFAULT_FOLDERS = ("/run/secrets", "/var/run/secrets", "secrets")
_MACHINE_FOLDERS = ("/run/secrets/kubernetes.io", "/run/secrets/eks.amazonaws.com", "/run/secrets/azure")
"""Tokens of the machine itself, by which a container signs in to its cluster."""
_SYSTEM = ("/proc", "/sys", "/dev")
_protected: dict[str, None] = {}


def protect(folder: str | Path) -> None:
    """Never reads a file in this folder: a worker's data, with the password of its broker."""
    _protected[os.path.realpath(folder)] = None


def protected() -> tuple[str, ...]:
    """The folders that are protected in this process, for a process that it starts."""
    return tuple(_protected)


def is_no_data(path: str) -> bool:
    """Whether a path is where a manifest can have no data read or written: the system's own, or a worker's home. Without links."""
    return _within(path, _never()) and not _within(path, ("/dev/shm",))  # noqa: S108 (asked for, not made)


def variable_refusal(name: str) -> str | None:
    """Why a variable is not read, where it is not."""
    if fnmatchcase(name, _OUR_NAMES) and name not in _FOR_MANIFESTS:
        return "it is one of Trunkline's own"
    said = os.environ.get(NAMES)
    if said is None:
        machine = any(fnmatchcase(name, pattern) for pattern in _MACHINE)
        return f"it belongs to the machine, and {NAMES} does not name it" if machine else None
    allowed = any(fnmatchcase(name, pattern) for pattern in re.split(r"[\s,]+", said) if pattern)
    return None if allowed or name in _FOR_MANIFESTS else f"{NAMES} does not name it"


def file_refusal(path: str) -> str | None:
    """Why a file is not read, where it is not. `path` has no links in it any more (`os.path.realpath`)."""
    if _within(path, _never()):
        return "it lies where no secrets are read from: in a folder of the system, or of the worker's own data"
    said = os.environ.get(FOLDERS)
    if said is not None:
        folders = [folder for folder in said.split(os.pathsep) if folder]
        return None if _within(path, map(os.path.realpath, folders)) else f"it lies in none of the folders of {FOLDERS}"
    if _within(path, map(os.path.realpath, _MACHINE_FOLDERS)):
        return f"it belongs to the machine, and {FOLDERS} does not name its folder"
    own = os.environ.get("CREDENTIALS_DIRECTORY")  # systemd.exec(5), "Credentials"
    folders = [*_DEFAULT_FOLDERS, *([own] if own else [])]
    return (
        None
        if _within(path, map(os.path.realpath, folders))
        else f"it lies neither in /run/secrets nor in a folder that {FOLDERS} names"
    )


def known_refusal(scheme: str, path: str) -> str | None:
    """Why a reference will be refused as far as this process can know, which may not be the worker: what is never read, and what an
    operator has said here.
    """
    if scheme == "env":
        ours = fnmatchcase(path, _OUR_NAMES)
        return variable_refusal(path) if ours or NAMES in os.environ else None
    if scheme == "file":
        whole = os.path.normpath(path)
        if _within(whole, _SYSTEM) or FOLDERS in os.environ:
            return file_refusal(os.path.realpath(path))
    return None


def advice(scheme: str, path: str) -> str:
    """What the operator does to have it read."""
    if scheme == "env":
        return f"the operator of the worker allows it by {NAMES}, which lists names and patterns such as `{path}` or `SHOP_*`"
    return f"put it into /run/secrets, or have the operator of the worker name its folder in {FOLDERS}"


def _never() -> list[str]:
    return [*_SYSTEM, *_protected, os.path.realpath(os.environ.get("TRUNKLINE_HOME") or ".trunkline")]


def _within(path: str, folders: Iterable[str]) -> bool:
    """Whether a path is in one of these folders, or is it. All of them without links."""
    return any(path == folder or path.startswith(folder.rstrip(os.sep) + os.sep) for folder in folders)
