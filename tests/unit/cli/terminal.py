"""A terminal as standard output, and what stood in it."""

from __future__ import annotations

import fcntl
import os
import struct
import sys
import termios
from collections.abc import Callable, Iterator

import pytest


def shown_in_terminal(monkeypatch: pytest.MonkeyPatch, print_: Callable[[], None], width: int = 80) -> str:
    """What `print_` writes to standard output, with all escapes, where that is a terminal of so many columns."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, width, 0, 0))
    with os.fdopen(theirs, "w") as screen, monkeypatch.context() as patched:
        patched.delenv("COLUMNS", raising=False)
        patched.setenv("TERM", "xterm")
        patched.setattr(sys, "stdout", screen)
        print_()
    return b"".join(_read(ours)).decode()


def _read(terminal: int) -> Iterator[bytes]:
    try:
        while found := os.read(terminal, 65536):
            yield found
    except OSError:  # how Linux says that nobody writes any more
        return
    finally:
        os.close(terminal)
