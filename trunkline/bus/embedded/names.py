"""The names by which the JVM is told of files: ASCII, short, and without a character that Java, Kafka or log4j reads as more than itself.

A home folder may be called anything. Java knows its files by text in the encoding of its locale: under `LC_ALL=C` it can't open a
path with an umlaut in it, and bytes that are no UTF-8 under no locale at all. Kafka splits `log.dirs` at commas, log4j expands `%`
and `${`, and an argument file ends at a line break. So where a path is not plain, the JVM, whose working directory is the folder
`kafka`, is told of it as `/proc/self/cwd`, which the kernel resolves whatever the folder is called.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

WORKING = "/proc/self/cwd"
_PLAIN = re.compile(r"[A-Za-z0-9/._+=@~-]{1,1000}")
_CACHE = "cache"


@dataclass(frozen=True, slots=True)
class JvmNames:
    """How the JVM is told of the folder `kafka` and of the cache."""

    kafka: str
    cache: str

    def in_kafka(self, name: str) -> str:
        """A file of the folder `kafka`."""
        return f"{self.kafka}/{name}"

    def in_cache(self, *parts: str) -> str:
        """A file of the cache."""
        return "/".join((self.cache, *parts))


def jvm_names(kafka: Path, cache: Path) -> JvmNames:
    """The names for a JVM with `kafka` as its working directory. Makes a link to the cache there, where it needs one. Raises OSError."""
    folder = _name(kafka)
    if _is_plain(cache) or not Path(WORKING).exists():
        return JvmNames(folder, str(cache))
    link = kafka / _CACHE
    if not link.is_symlink() or link.readlink() != cache:
        link.unlink(missing_ok=True)
        link.symlink_to(cache, target_is_directory=True)
    return JvmNames(folder, f"{WORKING}/{_CACHE}")


def jvm_environment() -> Mapping[str, str]:
    """The environment of a JVM of ours: file names are UTF-8 for it, and what it says is English, whatever the user's locale."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def for_people(text: str, kafka: Path) -> str:
    """What a JVM said, with the folder's own name in place of the one that the JVM knows."""
    return text.replace(WORKING, str(kafka))


def _name(folder: Path) -> str:
    return str(folder) if _is_plain(folder) or not Path(WORKING).exists() else WORKING


def _is_plain(path: Path) -> bool:
    return _PLAIN.fullmatch(str(path)) is not None
