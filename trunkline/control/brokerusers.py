"""Users of the broker who are not Trunkline: programs that produce to a topic or consume it with a Kafka client of their own.

Each signs in with SCRAM-SHA-512 and may do what was asked for and nothing else. Who is removed loses the rights first, which a connected
client feels at once, and then the password, so that it is cut off altogether at its next sign-in: on the embedded broker within four
seconds. Each step can be repeated, so a removal that was broken off is done by removing again.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from trunkline.bus.accounting.audit import Entry, announced
from trunkline.bus.embedded.options import RESERVED_USERS
from trunkline.bus.kafka import KafkaSettings, topics_of
from trunkline.bus.kafka.rights import (
    MECHANISM,
    Right,
    delete_password,
    grant,
    has_password,
    rights,
    set_password,
    take_all,
    to_consume,
    to_produce,
    to_transact,
)
from trunkline.control.cluster import Cluster
from trunkline.core.errors import ConfigurationError, did_you_mean

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}")
"""No underscore, so that the groups of one user, which begin with its name and one, are never another's."""
_PIPELINES = re.compile(r"[a-z0-9.-]*")
"""What the groups and transactional ids of pipelines, in any namespace, may begin with (`bus/names.py`, `core/manifests/names.py`)."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a user is to be allowed: topics to produce to and to consume.

    `groups` is what the names of its consumer groups begin with, by default its own name and an underscore; `transactions` the same for
    transactional ids, without which it has no transactions: one that is left open holds up every reader of committed records.
    """

    produce: Sequence[str] = ()
    consume: Sequence[str] = ()
    groups: str | None = None
    transactions: str | None = None


@dataclass(frozen=True, slots=True)
class NewUser:
    """A user that was made. The password is nowhere else: whoever loses it makes the user anew."""

    name: str
    bootstrap: str
    rights: list[Right]
    options: dict[str, str] = field(repr=False)
    """What its clients need, as options of librdkafka."""


def create(cluster: Cluster, name: str, wanted: Wanted) -> NewUser:
    """Makes a user. Raises `ConfigurationError` for a name or a right that can't be, and our error for Kafka's.

    Where it raises after the rights were given they are taken again; if even that fails, `remove` does it.
    """
    kafka = cluster.kafka
    _require_name(name)
    given = _rights_of(cluster, name, wanted)
    if name in rights(kafka) or has_password(kafka, name):  # one without rights may be the cluster's administrator
        raise ConfigurationError(
            f"there is a user {name} on this broker",
            hint=f"choose another name, or remove it first: `trunkline broker user rm {name}`",
            code="user.exists",
        )
    cluster.ensure_internal_topics()
    with announced(kafka, cluster.names, _entry(cluster, "user.create", name, given)):
        try:
            grant(kafka, name, given)  # first: a user without rights would be in no list
            password = set_password(kafka, name)
        except BaseException:
            take_all(kafka, name)
            raise
    return NewUser(name, kafka.bootstrap, given, client_options(kafka, name, password))


def remove(cluster: Cluster, name: str) -> list[Right]:
    """Removes a user, and gives the rights that it had. Raises `ConfigurationError` (`user.unknown`), and our error for Kafka's."""
    kafka = cluster.kafka
    _require_name(name)
    known = rights(kafka)
    cluster.ensure_internal_topics()
    with announced(kafka, cluster.names, _entry(cluster, "user.remove", name, known.get(name, []))):
        had = take_all(kafka, name)
        had_password = delete_password(kafka, name)
    if not had and not had_password:
        raise ConfigurationError(
            f"there is no user {name} on this broker", hint=did_you_mean(name, known), code="user.unknown"
        )
    return had


def users(cluster: Cluster) -> dict[str, list[Right]]:
    """The users that have rights. Raises our error for Kafka's."""
    return rights(cluster.kafka)


def client_options(kafka: KafkaSettings, user: str, password: str) -> dict[str, str]:
    """What the clients of a user need on the same listener as ours, as options of librdkafka."""
    secured = kafka.options.get("security.protocol", "").upper().endswith("SSL")
    options = {name: value for name, value in kafka.options.items() if name.startswith("ssl.ca.")}
    return options | {
        "security.protocol": "SASL_SSL" if secured else "SASL_PLAINTEXT",
        "sasl.mechanism": MECHANISM,
        "sasl.username": user,
        "sasl.password": password,
    }


def properties(bootstrap: str, options: Mapping[str, str]) -> str:
    """The file that librdkafka's tools take (`kcat -F`): a line for each option. It holds the password."""
    lines = {"bootstrap.servers": bootstrap, **options}
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def _require_name(name: str) -> None:
    if not _NAME.fullmatch(name) or name in RESERVED_USERS:
        raise ConfigurationError(
            f"{name!r} can't be the name of a user",
            hint="use letters, digits and hyphens, at most 63, and none of the broker's own names "
            f"({', '.join(sorted(RESERVED_USERS))})",
            code="user.name",
        )


def _rights_of(cluster: Cluster, name: str, wanted: Wanted) -> list[Right]:
    if not wanted.produce and not wanted.consume:
        raise ConfigurationError(
            f"{name} is to be allowed nothing", hint="name a topic by --produce or --consume", code="user.rights"
        )
    known = topics_of(cluster.kafka)
    for topic in (*wanted.produce, *wanted.consume):
        if topic.startswith("_") or "._" in topic:
            raise ConfigurationError(
                f"{topic} is one of the bus's own topics: who writes to it commands the bus, and it holds what nobody else is to read",
                code="user.rights",
            )
        if topic not in known:
            raise ConfigurationError(
                f"there is no topic {topic}", hint=did_you_mean(topic, known), code="topic.unknown"
            )
    groups = f"{name}_" if wanted.groups is None else wanted.groups
    given = [right for topic in wanted.produce for right in to_produce(topic)]
    given += [right for topic in wanted.consume for right in to_consume(topic, _foreign(groups, "--group"))]
    if wanted.transactions is not None:
        given += to_transact(_foreign(wanted.transactions, "--transactions"))
    return list(dict.fromkeys(given))


def _foreign(prefix: str, option: str) -> str:
    """A prefix that no group or transactional id of a pipeline can have: who had theirs could take its records away, or fence it."""
    if _PIPELINES.fullmatch(prefix) or prefix.startswith(("_", "*")):
        raise ConfigurationError(
            f"pipelines, of now or of later, may have names that begin with {prefix!r}",
            where=option,
            hint="choose one with an underscore or a capital letter behind its beginning, such as `billing_`",
            code="user.rights",
        )
    return prefix


def _entry(cluster: Cluster, action: str, name: str, given: Sequence[Right]) -> Entry:
    details: dict[str, Any] = {"rights": [asdict(one) for one in given]}
    return Entry(time.time(), cluster.actor, action, "", details, subject=f"user/{name}")
