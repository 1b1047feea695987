"""The peers: what one would use instead, as commands that do the same work. Those that can't be made on this machine are left out.

They are in a folder beside the project (`BENCH_PEERS`, else `../shared/peers`), with a `requirements.txt` for the Python ones and a
`build.py` for the Java one. What has to be installed goes to `trunkline-peers` in the temporary folder, once. Without that folder
only the raw loops are there, from `raw_loops`, which do the same as the peers' own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PLACE = Path(os.environ.get("PEERS_TMP") or Path(tempfile.gettempdir()) / "trunkline-peers")
PYTHON = PLACE / "venv" / "bin" / "python"
JVM = ("-Xmx1g", "-XX:+UseG1GC", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")


@dataclass(frozen=True, slots=True)
class Peer:
    """A command, and what it finds in its environment besides the names of topics."""

    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)


def folder() -> Path | None:
    """Where the peers are; None where they are not."""
    found = Path(os.environ.get("BENCH_PEERS") or Path(__file__).resolve().parents[2] / "shared" / "peers")
    return found if (found / "peers").is_dir() else None


def peers() -> tuple[dict[str, Peer], list[str]]:
    """The peers that can run here by name, and sentences about those that can't."""
    there = folder()
    scripts = there / "peers" if there is not None else Path(__file__).parent / "raw_loops"
    # The raw loops run with our own Python and client, so that nothing but the work around the client differs.
    found = {
        "raw": Peer((sys.executable, str(scripts / "raw.py"))),
        "raw-eos": Peer((sys.executable, str(scripts / "raw_eos.py"))),
    }
    if there is None:
        return found, ["The peers' folder is not there: the raw loops are the benchmark's own."]
    missing = []
    try:
        python = make_environment(there)
    except (OSError, subprocess.CalledProcessError) as error:
        missing.append(f"Quix Streams, FastStream and Faust could not be installed: {error}.")
    else:
        found |= {
            "quix": Peer((python, str(scripts / "quix.py"))),
            "quix-eos": Peer((python, str(scripts / "quix.py")), {"PEER_EOS": "1"}),
            "faststream": Peer((python, str(scripts / "faststream_peer.py"))),
            "faust": Peer((python, str(scripts / "faust_peer.py"))),
        }
    try:
        java = _make_streams(there)
    except (OSError, subprocess.CalledProcessError) as error:
        missing.append(f"Kafka Streams could not be built: {error}.")
    else:
        command = (java, *JVM, "-cp", f"{PLACE}/classes:{PLACE}/lib/streams/*", "OrdersStreams")
        found |= {"kstreams": Peer(command), "kstreams-eos": Peer(command, {"PEER_EOS": "1"})}
    return found, missing


def make_environment(there: Path) -> str:
    """The Python of the peers, in an environment of their own that is made where it is not there.

    Raises OSError or CalledProcessError where that does not work.
    """
    if PYTHON.exists():
        return str(PYTHON)
    PLACE.mkdir(parents=True, exist_ok=True)
    requirements = str(there / "requirements.txt")
    uv = shutil.which("uv")
    if uv is not None:
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(PYTHON.parents[1]))
        _run(uv, "pip", "install", "--quiet", "--python", str(PYTHON), "--requirement", requirements)
        return str(PYTHON)
    _run(sys.executable, "-m", "venv", str(PYTHON.parents[1]))
    _run(str(PYTHON), "-m", "pip", "install", "--quiet", "--requirement", requirements)
    return str(PYTHON)


def _make_streams(there: Path) -> str:
    """Builds the topology where it is not built; the `java` to run it with."""
    from trunkline.bus.embedded.java import find_java

    if not (PLACE / "classes" / "OrdersStreams.class").exists():
        python = str(PYTHON) if PYTHON.exists() else sys.executable
        _run(python, str(there / "build.py"), env={**os.environ, "PEERS_TMP": str(PLACE)})
    return str(find_java())


def _run(*command: str, env: Mapping[str, str] | None = None) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=env)
