"""The two doors of a worker: the API, for its operators and for programs, and the ingress, for senders of webhooks."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from trunkline.core.access.fence import Fence
from trunkline.core.access.roles import Role
from trunkline.core.errors import ConfigurationError, did_you_mean
from trunkline.core.serving.connections import Limits
from trunkline.core.serving.listener import Listener, Ports
from trunkline.core.serving.tls import ServerTls, TlsFiles

API_SHARE, INGRESS_SHARE = 0.125, 0.5
"""Of the files that a process may open. The rest is for Kafka's clients, sinks and state."""
API_MOST = 256
INGRESS_MOST = 8192
"""An outage makes senders come back together: thousands of deliveries that were told 503 are sent again in the same second."""
OF_PROXY = 0.875
"""Behind a proxy all senders have one address."""
TOKEN_PATH = "/v1/token"  # noqa: S105
NO_ROLE = "none"
_HOST = re.compile(r"\*|(?:\*\.)?[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_ORIGIN = re.compile(r"https?://[A-Za-z0-9_.\[\]:-]+/?")


@dataclass(frozen=True, slots=True)
class Doors:
    """How both are served.

    `hosts` are the names under which they are known, beside those of loopback; `origins` are those of web pages that may send requests.
    `local_role` is what a program of this machine may do without a key, where the API is on loopback; `open_metrics` gives the metrics to
    whoever asks.
    """

    api_tls: TlsFiles | None = None
    ingress_tls: TlsFiles | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    local_role: Role | None = Role.ADMIN
    open_metrics: bool = False

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Doors:
        """From `TRUNKLINE_API_TLS_CERT`, `_KEY` and `_CLIENT_CA`, the same of `INGRESS`, `TRUNKLINE_HOSTS`, `TRUNKLINE_ORIGINS`,
        `TRUNKLINE_LOCAL_ROLE` and `TRUNKLINE_METRICS`.

        Raises `ConfigurationError`: `option.tls` for a certificate without its key, `option.hosts` for what can be no host name or
        origin, and `option.access` for a role or word that is none.
        """
        return cls(
            TlsFiles.of(environment, "TRUNKLINE_API_TLS_CERT", "TRUNKLINE_API_TLS_KEY", "TRUNKLINE_API_TLS_CLIENT_CA"),
            TlsFiles.of(
                environment,
                "TRUNKLINE_INGRESS_TLS_CERT",
                "TRUNKLINE_INGRESS_TLS_KEY",
                "TRUNKLINE_INGRESS_TLS_CLIENT_CA",
            ),
            _listed(environment, "TRUNKLINE_HOSTS", _HOST, "host names, such as bus.example.com or *.example.com"),
            _listed(environment, "TRUNKLINE_ORIGINS", _ORIGIN, "origins, such as https://console.example.com"),
            _role(environment.get("TRUNKLINE_LOCAL_ROLE") or Role.ADMIN),
            _is_open(environment.get("TRUNKLINE_METRICS") or "guarded"),
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
            fence=Fence(is_loopback(address[0]), self.hosts, self.origins, forms=(TOKEN_PATH,)),
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
            fence=Fence(is_loopback(address[0]), self.hosts, self.origins, any_host=True, any_content=True),
            limits=Limits.within_files(INGRESS_SHARE, INGRESS_MOST, OF_PROXY),
            ports=ports,
            tls=_tls(self.ingress_tls),
        )


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _listed(environment: Mapping[str, str], name: str, form: re.Pattern[str], what: str) -> tuple[str, ...]:
    found = tuple(one.strip() for one in environment.get(name, "").split(",") if one.strip())
    for one in found:
        if not form.fullmatch(one):
            raise ConfigurationError(
                f"{one!r} is not one", where=name, hint=f"list {what}, with commas between", code="option.hosts"
            )
    return found


def _role(text: str) -> Role | None:
    if text == NO_ROLE:
        return None
    if text not in set(Role):
        raise ConfigurationError(
            f"there is no role {text!r}",
            where="TRUNKLINE_LOCAL_ROLE",
            hint=did_you_mean(text, [*Role, NO_ROLE]),
            code="option.access",
        )
    return Role(text)


def _is_open(text: str) -> bool:
    if text not in ("open", "guarded"):
        raise ConfigurationError(
            f"{text!r} is neither open nor guarded",
            where="TRUNKLINE_METRICS",
            hint="say one of them",
            code="option.access",
        )
    return text == "open"


def _tls(files: TlsFiles | None) -> ServerTls | None:
    return ServerTls(files) if files is not None else None
