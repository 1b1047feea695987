"""`trunkline demo`: flights of 2013 from two doors through Kafka to five systems, with what can go wrong on the way."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def run_demo(stay: bool = False, *, home: Path | None = None, is_open: bool = False) -> int:
    """Plays the demo in `home`, by default `.trunkline/demo`, which it empties first.

    0 when every check holds, 1 when one does not, 130 after Ctrl-C. With `stay` everything keeps running after the report
    until Ctrl-C. With `is_open` the broker asks nobody who they are.

    Raises `UnavailableError` and `ConfigurationError` for what keeps it from starting.
    """
    begun = time.monotonic()
    # Said before the imports, which take a second.
    sys.stdout.write("Starting Apache Kafka, five systems to deliver to, and a worker with eight pipelines.\n")
    sys.stdout.flush()
    from trunkline.bus.embedded import EmbeddedOptions
    from trunkline.cli.demo.scene import run_scene

    return run_scene(begun, stay, home, EmbeddedOptions(open=is_open))
