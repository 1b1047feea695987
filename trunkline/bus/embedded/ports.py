"""The loopback ports of the embedded broker: chosen once, and kept as long as they are free.

While clients wait for a broker to come back its client port stays, come what may: on another one they would never find it.
"""

from __future__ import annotations

import json
import random
import socket
from dataclasses import asdict
from pathlib import Path

from trunkline.bus.embedded.properties import HOST, Ports
from trunkline.bus.embedded.running import write_private
from trunkline.core.errors import UnavailableError

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 20_000
_TRIES = 50


def choose_ports(file: Path, *, fresh: bool = False, promised: int | None = None) -> Ports:
    """The ports of the last start where all are free, else (or when `fresh`) new ones; noted in `file`.

    `promised` is the client port that clients wait for. Raises `UnavailableError` (`embedded.port`) where that is taken, and OSError.
    """
    if promised is not None:
        require_free(promised, file.parent)
    ports = None if fresh else _noted(file)
    if (
        ports is None
        or promised not in (None, ports.client)
        or not all(_is_free(port) for port in asdict(ports).values())
    ):
        client, controller, internal = new_ports(3)
        ports = Ports(client=promised or client, controller=controller, internal=internal)
        write_private(file, json.dumps(asdict(ports)) + "\n")
    return ports


def require_free(port: int, kafka: Path) -> None:
    """That nobody listens on a port that clients know as the broker's. Raises `UnavailableError` (`embedded.port`)."""
    if not _is_free(port):
        raise UnavailableError(
            f"another program listens on {HOST}:{port}, where the clients of the embedded broker wait for it",
            where=str(kafka.parent),
            hint=f"end that program (`ss -ltnp 'sport = :{port}'` names it), and the broker starts by itself",
            code="embedded.port",
        )


def _noted(file: Path) -> Ports | None:
    try:
        return Ports(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the JVM does: a port in TIME_WAIT counts as free, one that someone listens on does not.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def new_ports(count: int) -> list[int]:
    """Ports below the ephemeral range, so that no outgoing connection takes them while the broker restarts."""
    try:
        highest = int(_RANGE.read_text(encoding="ascii").split()[0]) - 1
    except OSError:
        highest = 32_767
    chosen: list[int] = []
    for _ in range(_TRIES):
        if highest <= _LOWEST + _TRIES or len(chosen) == count:
            break
        port = random.randint(_LOWEST, highest)  # noqa: S311 - not a secret
        if port not in chosen and _is_free(port):
            chosen.append(port)
    while len(chosen) < count:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        if port not in chosen:
            chosen.append(port)
    return chosen
