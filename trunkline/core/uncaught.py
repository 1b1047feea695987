"""Exceptions that nobody catches."""

from __future__ import annotations

import contextlib
import sys
import threading
import traceback

from trunkline.core.redaction import redact


def redact_what_nobody_catches() -> None:
    """Exceptions that end a process or a thread, or can't be raised, are written by Python as they are: here without their secrets.

    For a process that is ours: it belongs at its beginning.
    """

    def write(about: str, error: BaseException | None) -> None:
        if error is not None and sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(redact(about + "".join(traceback.format_exception(error))))

    def thread_ended(found: threading.ExceptHookArgs) -> None:
        if found.exc_type is not SystemExit:
            write(
                f"Exception in thread {found.thread.name if found.thread is not None else 'unknown'}:\n",
                found.exc_value,
            )

    sys.excepthook = lambda _kind, error, _traceback: write("", error)
    sys.unraisablehook = lambda found: write(f"{found.err_msg or 'Exception ignored'}:\n", found.exc_value)
    threading.excepthook = thread_ended
