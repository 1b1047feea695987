"""Class data sharing: the broker's loaded classes, kept in the cache, so that later starts need half the CPU time.

The JVM writes the archive when it ends in order (JEP 350), which takes some seconds, once for each Java and set of jars. It
writes to a name of its own, which becomes the archive's only after a clean exit: a half-written one is never used.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from trunkline.bus.embedded.jars import cache_folder
from trunkline.bus.embedded.names import JvmNames

_FOLDER = "cds"
_ABANDONED = 3600.0
_FLAGS = ("-XX:+UseSerialGC", "-Xshare:auto", "-Xlog:cds=off", "-Xlog:cds+dynamic=off")


@dataclass(frozen=True, slots=True)
class ClassArchive:
    """The archive of one Java and one class path: `path` once it is there, `pending` while this run's JVM is to write it."""

    path: Path
    pending: Path | None
    names: JvmNames

    @property
    def arguments(self) -> list[str]:
        """The JVM's arguments that use the archive, or that write it at the end."""
        if self.pending is None:
            return [*_FLAGS, f"-XX:SharedArchiveFile={self.names.in_cache(_FOLDER, self.path.name)}"]
        return [*_FLAGS, f"-XX:ArchiveClassesAtExit={self.names.in_cache(_FOLDER, self.pending.name)}"]

    def keep(self) -> None:
        """Take over what a JVM wrote that ended in order."""
        if self.pending is not None:
            with contextlib.suppress(OSError):
                self.pending.replace(self.path)

    def discard(self) -> None:
        """Remove what a JVM wrote that was killed."""
        if self.pending is not None:
            with contextlib.suppress(OSError):  # a later start removes it
                self.pending.unlink(missing_ok=True)


def class_archive(java: Path, jars: list[Path], names: JvmNames) -> ClassArchive | None:
    """The archive for this Java and these jars; None where the cache can't be written and there is none."""
    key = hashlib.sha256(
        os.fsencode(names.cache)
    )  # the JVM refuses an archive whose class path is called otherwise than noted
    for path in (java.resolve(), *jars):  # and one whose Java or jars have other times
        key.update(b"%b\0%d\n" % (os.fsencode(path), path.stat().st_mtime_ns))
    folder = cache_folder() / _FOLDER
    archive = folder / f"{key.hexdigest()[:24]}.jsa"
    if archive.exists():
        return ClassArchive(archive, None, names)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for part in folder.glob("*.part"):  # left by a JVM whose parent was killed
            if part.stat().st_mtime < time.time() - _ABANDONED:
                part.unlink()
    except OSError:
        return None
    return (
        ClassArchive(archive, folder / f"{archive.stem}.{uuid.uuid4().hex[:8]}.part", names)
        if os.access(folder, os.W_OK)
        else None
    )
