"""A broker of a row's own: killed, stopped, frozen, and started again on the same data and the same port."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.chaos.faults.processes import process_state
from tests.chaos.faults.proxy import TcpProxy
from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions
from trunkline.bus.embedded.options import INTERNAL_USER, ScramOptions
from trunkline.bus.embedded.ports import choose_ports, new_ports
from trunkline.bus.embedded.properties import HOST, REAUTHENTICATION, Ports

ADMIN = "admin"
KILL, FREEZE, STOP = "broker kill -9", "broker SIGSTOP", "broker stopped"


class Broker:
    """The embedded broker under faults.

    With `proxied`, clients that use `bootstrap` talk through `proxy`: the broker has a listener of its own for them, which
    advertises the proxy's port, so that no client finds a way around it. `direct` is the listener without the proxy.

    With `authorizer`, clients sign in, and only what an ACL allows is allowed; `client_options` are the administrator's. Who comes by
    `direct` may do everything and need not sign in: each time that takes a client milliseconds of the processor (8,192 hashes).
    """

    def __init__(
        self,
        home: Path,
        *,
        proxied: bool = False,
        authorizer: bool = False,
        overrides: Mapping[str, str] | None = None,
    ) -> None:
        self.fired: Counter[str] = Counter()
        self.home = home
        ports = choose_ports(home / "kafka" / "ports.json")
        self._usual = self.direct = f"{HOST}:{ports.client}"
        self.proxy: TcpProxy | None = None
        own = dict(overrides or {})
        if proxied:
            # The port of the talk with itself is free: it is used by brokers with users only.
            self.proxy = TcpProxy((HOST, ports.internal))
            own |= proxied_listeners(ports.client, ports.controller, [(ports.internal, self.proxy.start())])
        if authorizer:
            own.setdefault(REAUTHENTICATION, "0")
            (port,) = new_ports(1)
            self.direct = f"{HOST}:{port}"
            own |= _open_listener(ports, port)
        scram = ScramOptions(ADMIN, secrets.token_urlsafe(16)) if authorizer else None
        options = EmbeddedOptions(open=not authorizer, scram=scram, overrides=own, start_timeout=180.0)
        self._kafka = EmbeddedKafka(home, options)

    @property
    def bootstrap(self) -> str:
        """Where clients connect: the proxy, if there is one."""
        return self._usual if self.proxy is None else f"{HOST}:{self.proxy.port}"

    @property
    def client_options(self) -> dict[str, str]:
        """What a client needs beside `bootstrap`."""
        assert self._kafka.running is not None
        return self._kafka.running.client_options

    @property
    def all_fired(self) -> Counter[str]:
        """What the broker and its proxy did until now."""
        return self.fired + (self.proxy.fired if self.proxy is not None else Counter())

    def start(self) -> None:
        """Starts the broker unless it runs, or starts it again, and waits until it is healthy."""
        self._kafka.start()

    def kill(self) -> None:
        """SIGKILL. The port stays noted, so that `start` takes it again."""
        self._kafka.kill()
        self.fired[KILL] += 1

    def stop(self) -> None:
        """Ends the broker in order; it can be started again."""
        self._kafka.stop()
        self.fired[STOP] += 1

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP for a while, as a long pause of the virtual machine: connections stay open and nothing answers."""
        assert self._kafka.running is not None
        pid = self._kafka.running.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 5
            while process_state(pid) != "T" and time.monotonic() < deadline:
                time.sleep(0.005)
            self.fired[FREEZE] += process_state(pid) == "T"
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def close(self) -> None:
        """Ends broker and proxy for good. Nobody reads the broker's files after that, so it need not close them."""
        if self.proxy is not None:
            self.proxy.stop()
        self._kafka.kill()


def _open_listener(ports: Ports, port: int) -> dict[str, str]:
    """A listener without a sign-in beside those of a broker with users, for administrators."""
    usual = f"CLIENT://{HOST}:{ports.client},INTERNAL://{HOST}:{ports.internal},OPEN://{HOST}:{port}"
    protocols = dict.fromkeys(("CLIENT", "INTERNAL", "CONTROLLER"), "SASL_PLAINTEXT") | {"OPEN": "PLAINTEXT"}
    return {
        "listeners": f"{usual},CONTROLLER://{HOST}:{ports.controller}",
        "advertised.listeners": usual,
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "super.users": f"User:{INTERNAL_USER};User:{ADMIN};User:ANONYMOUS",
    }


def proxied_listeners(client: int, controller: int, proxied: Sequence[tuple[int, int]]) -> dict[str, str]:
    """Listeners beside the usual one, each with its own port and that of the proxy which it tells clients instead.

    A client is told the address of the listener by which it came (Kafka's `advertised.listeners`), so none finds a way around its
    proxy.
    """
    usual = f"CLIENT://{HOST}:{client}"
    through = {f"PROXIED{number}": ports for number, ports in enumerate(proxied)}
    own = [f"{name}://{HOST}:{port}" for name, (port, _) in through.items()]
    told = [f"{name}://{HOST}:{proxy}" for name, (_, proxy) in through.items()]
    return {
        "listeners": ",".join([usual, *own, f"CONTROLLER://{HOST}:{controller}"]),
        "advertised.listeners": ",".join([usual, *told]),
        "listener.security.protocol.map": ",".join(f"{name}:PLAINTEXT" for name in ("CLIENT", "CONTROLLER", *through)),
        "inter.broker.listener.name": "CLIENT",
    }
