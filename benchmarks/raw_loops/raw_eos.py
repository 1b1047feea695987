"""The raw loop with a transaction each 200 ms."""

from __future__ import annotations

import os
import runpy
from pathlib import Path

os.environ["PEER_TRANSACTIONAL"] = "1"
runpy.run_path(str(Path(__file__).with_name("raw.py")), run_name="__main__")
