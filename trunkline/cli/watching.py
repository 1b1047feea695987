"""Showing something again and again, until Ctrl-C."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trunkline.core.errors import RetriableError, UnavailableError

if TYPE_CHECKING:
    from trunkline.cli.output import Output

_CLEAR = "\x1b[H\x1b[2J\x1b[3J"
"""Cursor to the first place, screen and what was scrolled away cleared (ECMA-48, and xterm's own 3J)."""


def watched(
    out: Output,
    look: Callable[[], Any],
    show: Callable[[Any], None],
    seconds: float,
    *,
    wait: Callable[[float], object] = time.sleep,
) -> None:
    """Looks, and shows what was found, every so many seconds. In a terminal it stands where the last one stood.

    `look` may take long: the screen changes at once when it is done. What may pass, such as a broker that is away, is told and looked for
    again. Ends with the KeyboardInterrupt of Ctrl-C.
    """
    while True:
        error: Exception | None = None
        found: Any = None
        try:
            found = look()
        except (UnavailableError, RetriableError) as away:
            error = away
        if out.for_people:
            stamp = time.strftime("%Y-%m-%d %H:%M:%S")
            if sys.stdout.isatty():
                sys.stdout.write(_CLEAR)
            out.line(f"{stamp}, every {seconds:g} s until Ctrl-C")
        if error is not None:
            out.error(error)
        else:
            show(found)
        sys.stdout.flush()
        wait(seconds)
