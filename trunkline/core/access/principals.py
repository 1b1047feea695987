"""Principals: programs and people that sign in. What each may do, and from where and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Any, Final

from trunkline.core.access.keys import Key
from trunkline.core.access.roles import EVERYTHING, Grant, Permission, Role, Target

VERSION: Final = 1
OWN_NAME: Final = "worker"
"""What a worker is for itself, and for the programs of its user."""
LOCAL_NAME: Final = "local"
RESERVED: Final = frozenset({OWN_NAME, LOCAL_NAME})
"""Names that no record can give rights to."""


@dataclass(frozen=True)
class Principal:
    """One of them. `rate` is in requests a second to each worker; `addresses` are addresses and networks from which it may come, all where
    none are named.
    """

    name: str
    grants: tuple[Grant, ...] = ()
    team: str | None = None
    keys: tuple[Key, ...] = ()
    addresses: tuple[str, ...] = ()
    rate: float | None = None

    def may(self, permission: Permission, target: Target | None = None) -> bool:
        """Whether any of its grants allows this."""
        return any(grant.allows(permission, target, self.team) for grant in self.grants)

    def may_come_from(self, address: str) -> bool:
        """Whether it is allowed from this address."""
        if not self.addresses:
            return True
        try:
            found = ip_address(address.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(found, "ipv4_mapped", None)
        return any((mapped or found) in network for network in self._networks)

    @cached_property
    def _networks(self) -> Sequence[IPv4Network | IPv6Network]:
        return [ip_network(one, strict=False) for one in self.addresses]

    def as_dict(self) -> dict[str, Any]:
        """As its record has it."""
        return {
            "v": VERSION,
            "name": self.name,
            "team": self.team,
            "grants": [{"role": grant.role, "on": list(grant.on)} for grant in self.grants],
            "keys": [key.as_dict() for key in self.keys],
            "addresses": list(self.addresses),
            "rate": self.rate,
        }

    @classmethod
    def of(cls, data: Any) -> Principal:
        """From its record. Raises ValueError, TypeError or KeyError for what is none, also of a newer version."""
        if data["v"] > VERSION:
            raise ValueError(f"a principal of the newer version {data['v']}")
        return cls(
            name=data["name"],
            grants=tuple(Grant(Role(one["role"]), tuple(one["on"])) for one in data["grants"]),
            team=data["team"],
            keys=tuple(Key(one["id"], one["hash"], one["created"], one["expires"]) for one in data["keys"]),
            addresses=tuple(str(ip_network(one, strict=False)) for one in data["addresses"]),
            rate=data["rate"],
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a principal, and the key that it signed in with; `on_behalf_of` a person, where one gave a command to a worker's own."""

    principal: Principal
    key: str = ""
    on_behalf_of: str = ""

    @property
    def name(self) -> str:
        """For logs and the audit trail."""
        return self.on_behalf_of or self.principal.name


NOBODY: Final = Caller(Principal(""))
"""Who has not signed in. May nothing."""


def local(role: Role | None) -> Caller:
    """Whoever asks on loopback without a key, who is a program of this machine."""
    return Caller(Principal(LOCAL_NAME, (Grant(role, (EVERYTHING,)),))) if role is not None else NOBODY
