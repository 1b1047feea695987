"""The two doors of a worker: the API, for its operators and for programs, and the ingress, for senders of webhooks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from trunkline.core.access.fence import Fence
from trunkline.core.errors import ConfigurationError
from trunkline.core.serving.connections import MOST, Limits
from trunkline.core.serving.listener import Listener, Ports
from trunkline.core.serving.tls import ServerTls, TlsFiles

API_SHARE, INGRESS_SHARE = 0.125, 0.25
"""Of the files that a process may open. The rest is for Kafka's clients, sinks and state."""
API_MOST = 256
_HOST = re.compile(r"\*|(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9_.\[\]:-]+/?")


@dataclass(frozen=True, slots=True)
class Doors:
    """How both are served.

    `hosts` are the names under which they are known, beside those of loopback; `origins` are those of web pages that may send requests.
    """

    api_tls: TlsFiles | None = None
    ingress_tls: TlsFiles | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Doors:
        """From `TRUNKLINE_API_TLS_CERT`, `_KEY` and `_CLIENT_CA`, the same of `INGRESS`, `TRUNKLINE_HOSTS` and `TRUNKLINE_ORIGINS`.

        Raises `ConfigurationError` (`option.tls`) for a certificate without its key, and (`option.hosts`) for what can be no host name
        or origin.
        """
        return cls(
            _files(environment, "TRUNKLINE_API_TLS"),
            _files(environment, "TRUNKLINE_INGRESS_TLS"),
            _listed(environment, "TRUNKLINE_HOSTS", _HOST, "host names, such as bus.example.com or *.example.com"),
            _listed(environment, "TRUNKLINE_ORIGINS", _ORIGIN, "origins, such as https://console.example.com"),
        )

    def is_local(self, address: tuple[str, int]) -> bool:
        """Whether programs on this machine, and nobody else, can use the API at this address as they are."""
        return is_loopback(address[0]) and self.api_tls is None

    def api(self, address: tuple[str, int], ports: Ports | None) -> Listener:
        """The listener of the API."""
        return Listener(
            "api",
            address,
            "choose another with --api or TRUNKLINE_API",
            fence=Fence(is_loopback(address[0]), self.hosts, self.origins),
            limits=Limits.within_files(API_SHARE, API_MOST),
            ports=ports,
            tls=_tls(self.api_tls),
        )

    def ingress(self, address: tuple[str, int], ports: Ports) -> Listener:
        """The listener of the ingress, whose bodies may be of any type: what they are is said by a signature and a schema."""
        return Listener(
            "ingress",
            address,
            "choose another with --ingress or TRUNKLINE_INGRESS",
            fence=Fence(is_loopback(address[0]), self.hosts, self.origins, any_content=True),
            limits=Limits.within_files(INGRESS_SHARE, MOST),
            ports=ports,
            tls=_tls(self.ingress_tls),
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _files(environment: Mapping[str, str], prefix: str) -> TlsFiles | None:
    cert, key, clients = (environment.get(f"{prefix}_{what}") or None for what in ("CERT", "KEY", "CLIENT_CA"))
    return TlsFiles.of(cert, key, clients, prefix)


def _listed(environment: Mapping[str, str], name: str, form: re.Pattern[str], what: str) -> tuple[str, ...]:
    found = tuple(one.strip() for one in environment.get(name, "").split(",") if one.strip())
    for one in found:
        if not form.fullmatch(one):
            raise ConfigurationError(
                f"{one!r} is not one", where=name, hint=f"list {what}, with commas between", code="option.hosts"
            )
    return found


def _tls(files: TlsFiles | None) -> ServerTls | None:
    return ServerTls(files) if files is not None else None
