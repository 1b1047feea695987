"""Principals and their keys: made, listed, rotated with an overlap, revoked. Every worker hears of it at once."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

import orjson

from trunkline.bus.accounting.audit import Entry
from trunkline.bus.commands import Effect, Latest, Write, carry_out, read_latest
from trunkline.bus.worker.principals import USED
from trunkline.control.cluster import Cluster
from trunkline.core.access.keys import Key, make_key
from trunkline.core.access.principals import RESERVED, Principal
from trunkline.core.access.roles import EVERYTHING, OWN, Grant, Role
from trunkline.core.access.tokens import ISSUER
from trunkline.core.errors import ConfigurationError, did_you_mean

_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,62}")
_PATTERN = re.compile(r"[A-Za-z0-9._*-]{1,249}")
SHORTEST = 1.0
"""Seconds that a key lasts at least."""
SLOWEST = 1 / 3600
"""Requests a second that a principal may be held to: one an hour."""
_WHAT = "the key can't be written"


@dataclass(frozen=True, slots=True)
class Made:
    """A new key. `whole` is shown to whoever asked for it, once: nobody can find it again."""

    principal: Principal
    key: Key
    whole: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A key as it can be shown. Times are Unix seconds; `used` is when it was last used, to the minute, None where it never was."""

    principal: Principal
    key: Key
    used: float | None
    lasts: bool

    def as_dict(self) -> dict[str, Any]:
        """As data, without the hash: nothing is done with it that a list could be for."""
        return {
            "principal": self.principal.name,
            "key": self.key.id,
            "team": self.principal.team,
            "grants": [{"role": str(one.role), "on": list(one.on)} for one in self.principal.grants],
            "addresses": list(self.principal.addresses),
            "rate": self.principal.rate,
            "created": self.key.created,
            "expires": self.key.expires,
            "used": self.used,
            "lasts": self.lasts,
        }


def create(
    cluster: Cluster,
    name: str,
    *,
    roles: Sequence[str],
    on: Sequence[str] = (),
    team: str | None = None,
    addresses: Sequence[str] = (),
    rate: float | None = None,
    lasts: float | None = None,
) -> Made:
    """A principal with its first key, which lasts so many seconds, or until it is revoked.

    Raises `ConfigurationError` (`key.*`) for what is not possible, also where the principal exists.
    """
    principal = Principal(
        _checked_name(name),
        tuple(_grants(roles, on, team)),
        team,
        (),
        _checked_addresses(addresses),
        _checked_rate(rate),
    )
    key, whole = _new_key(lasts)
    principal = replace(principal, keys=(key,))

    def decide(latest: Latest) -> Effect[None]:
        if latest.get(name) is not None:
            raise ConfigurationError(
                f"there is a principal {name!r}",
                hint=f"give it another key with `trunkline key rotate {name}`, or revoke it first",
                code="key.exists",
            )
        return _effect(cluster, "key.create", None, principal)

    _carry_out(cluster, decide)
    return Made(principal, key, whole)


def rotate(cluster: Cluster, name: str, *, overlap: float, lasts: float | None = None) -> Made:
    """Another key for a principal. Those that it has end after `overlap` seconds, so that whoever uses them has time to change.

    Raises `ConfigurationError` (`key.unknown`, and `key.expires` for one that would end at once).
    """
    key, whole = _new_key(lasts)

    def decide(latest: Latest) -> Effect[Principal]:
        before, now = _found(latest, name), time.time()
        kept = tuple(one.until(now + overlap) for one in before.keys if overlap > 0 and one.lasts(now))
        after = replace(before, keys=(*kept, key))
        return replace(_effect(cluster, "key.rotate", before, after), answer=after)

    return Made(_carry_out(cluster, decide), key, whole)


def revoke(cluster: Cluster, wanted: str) -> str:
    """Takes a principal away by its name, with all its keys, or one key by its id. Returns what was done.

    Raises `ConfigurationError` (`key.unknown`).
    """

    def decide(latest: Latest) -> Effect[str]:
        owner = next((one for one in _all(latest) if any(key.id == wanted for key in one.keys)), None)
        if owner is None:
            before = _found(latest, wanted)
            return replace(_effect(cluster, "key.revoke", before, None), answer=f"{before.name} and all its keys")
        after = replace(owner, keys=tuple(key for key in owner.keys if key.id != wanted))
        return replace(_effect(cluster, "key.revoke", owner, after), answer=f"the key {wanted} of {owner.name}")

    done: str = _carry_out(cluster, decide)
    return done


def listed(cluster: Cluster) -> list[Listed]:
    """All keys, by their principals' names."""
    cluster.ensure_internal_topics()
    latest, now = read_latest(cluster.kafka, cluster.names.principals), time.time()
    used = {
        key.removeprefix(USED): float(orjson.loads(found.value or b"{}").get("at", 0.0))
        for key, found in latest.items()
        if key.startswith(USED)
    }
    found = sorted(_all(latest), key=lambda one: one.name)
    return [Listed(one, key, used.get(key.id), key.lasts(now)) for one in found for key in one.keys]


def _carry_out(cluster: Cluster, decide: Callable[[Latest], Effect[Any]]) -> Any:
    cluster.ensure_internal_topics()
    return carry_out(cluster.kafka, cluster.names, cluster.names.principals, decide, by=cluster.actor, what=_WHAT)


def _effect(cluster: Cluster, action: str, before: Principal | None, after: Principal | None) -> Effect[Any]:
    name = (after or before or Principal("")).name
    details = {"before": _told(before), "after": _told(after)}
    entry = Entry(time.time(), cluster.actor, action, "", details, subject=f"Principal/{name}")
    value = orjson.dumps(after.as_dict()) if after is not None else None
    return Effect(None, [Write(cluster.names.principals, name.encode(), value)], [entry])


def _told(principal: Principal | None) -> dict[str, Any] | None:
    """What the audit trail has of one: everything but hashes."""
    if principal is None:
        return None
    data = principal.as_dict()
    return {**data, "keys": [{name: value for name, value in key.items() if name != "hash"} for key in data["keys"]]}


def _all(latest: Latest) -> list[Principal]:
    return [
        Principal.of(orjson.loads(found.value or b""))
        for key, found in latest.items()
        if not key.startswith((USED, ISSUER))
    ]


def _found(latest: Latest, name: str) -> Principal:
    known = {one.name: one for one in _all(latest)}
    if name not in known:
        raise ConfigurationError(
            f"there is neither a principal nor a key {name!r}", hint=did_you_mean(name, known), code="key.unknown"
        )
    return known[name]


def _new_key(lasts: float | None) -> tuple[Key, str]:
    if lasts is not None and not lasts >= SHORTEST:
        raise ConfigurationError(
            "a key lasts a second at least: this one would have ended before it is used",
            where="--expires",
            hint="say how long it is to last, such as 90d, or leave it out for a key that lasts until it is revoked",
            code="key.expires",
        )
    now = time.time()
    return make_key(now, now + lasts if lasts is not None else None)


def _grants(roles: Sequence[str], on: Sequence[str], team: str | None) -> list[Grant]:
    if not roles:
        raise ConfigurationError(
            "a key without a role may do nothing",
            where="--role",
            hint="name one of " + ", ".join(Role),
            code="key.role",
        )
    if team is not None and not team.strip():
        raise ConfigurationError(
            "a team without a name owns nothing",
            where="--team",
            hint="name it as manifests do in `owner`, or leave it out",
            code="key.team",
        )
    for one in on:
        if not _PATTERN.fullmatch(one):
            raise ConfigurationError(
                f"{one!r} is no name of a topic or pipeline", where="--on", hint="write it like orders.*", code="key.on"
            )
    if OWN in on and team is None:
        raise ConfigurationError(
            "`own` is what the team owns, and no team is named", where="--on", hint="name it with --team", code="key.on"
        )
    grants = []
    for text in roles:
        if text not in set(Role):
            raise ConfigurationError(
                f"there is no role {text!r}", where="--role", hint=did_you_mean(text, list(Role)), code="key.role"
            )
        role = Role(text)
        if role in (Role.PRODUCER, Role.CONSUMER) and not on:
            raise ConfigurationError(
                f"a {role} has to be told of which topics",
                where="--on",
                hint="name them, such as --on orders or --on 'orders.*'",
                code="key.on",
            )
        grants.append(Grant(role, tuple(on) or (EVERYTHING,)))
    return grants


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name) or name in RESERVED:
        raise ConfigurationError(
            f"{name!r} can't be the name of a principal",
            hint="use lower case letters, digits, '.', '_', '-' and '@', at most 63, and neither `local` nor `worker`",
            code="key.name",
        )
    return name


def _checked_addresses(addresses: Sequence[str]) -> tuple[str, ...]:
    found = []
    for one in addresses:
        try:
            found.append(str(ip_network(one, strict=False)))
        except ValueError as error:
            raise ConfigurationError(
                f"{one!r} is neither an address nor a network",
                where="--from",
                hint="such as 10.0.0.0/8",
                code="key.from",
            ) from error
    return tuple(found)


def _checked_rate(rate: float | None) -> float | None:
    if rate is not None and not SLOWEST <= rate < float("inf"):
        raise ConfigurationError(
            f"a rate of {rate:g} requests a second lets nobody work: it is one an hour (0.0003) at least",
            where="--rate",
            hint="name the requests a second, such as 10, or leave it out",
            code="key.rate",
        )
    return rate
