"""Users of a cluster with an authorizer: their SCRAM credentials, and the rights (ACLs) that they have.

Two of confluent-kafka's calls are used with care. `describe_user_scram_credentials` ends the whole process where an ACL refuses it, so
the cluster is asked before whether we may; and `describe_acls` gives an empty list for every error, a refusal among them, so those of a
user who does not exist are deleted before: the answer tells whether there is an authorizer, and whether we may.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)

from trunkline.bus.kafka.errors import translate
from trunkline.bus.kafka.settings import KafkaSettings
from trunkline.core.errors import ConfigurationError, FatalError, TrunklineError
from trunkline.kafkaclient import answered

MECHANISM: Final = "SCRAM-SHA-512"
_ITERATIONS: Final = 4096
"""Kafka's least. More would slow the guessing of a password down, and those that we make can't be guessed; each sign-in takes a client
2 µs an iteration, and it signs in with every connection, again and again."""
_PASSWORD_BYTES: Final = 32
_SECONDS: Final = 15.0
_PRINCIPAL: Final = "User:"


@dataclass(frozen=True, slots=True)
class Right:
    """One thing that is allowed: an operation (`write`, `read`) on a resource (`topic`, `group`, `transactional_id`) of this name, or on
    all whose names begin so."""

    resource: str
    name: str
    operation: str
    prefixed: bool = False

    def binding(self, user: str) -> AclBinding:
        """As confluent-kafka has it."""
        return AclBinding(
            ResourceType[self.resource.upper()],
            self.name,
            ResourcePatternType.PREFIXED if self.prefixed else ResourcePatternType.LITERAL,
            _PRINCIPAL + user,
            "*",
            AclOperation[self.operation.upper()],
            AclPermissionType.ALLOW,
        )


def to_produce(topic: str) -> list[Right]:
    """What writing records to a topic takes, also with an idempotent producer (KIP-679)."""
    return [Right("topic", topic, "write")]


def to_consume(topic: str, groups: str) -> list[Right]:
    """What reading a topic takes with consumer groups whose names begin with `groups`, of either protocol."""
    return [Right("topic", topic, "read"), Right("group", groups, "read", prefixed=True)]


def to_transact(transactions: str) -> list[Right]:
    """What transactions take whose ids begin so."""
    return [Right("transactional_id", transactions, "write", prefixed=True)]


def grant(kafka: KafkaSettings, user: str, rights: Sequence[Right]) -> None:
    """Gives a user rights beside those that it has. Raises our error for Kafka's; some may be given then."""
    what = f"the rights of {user} can't be given"
    admin = kafka.admin()  # its answers come only as long as it is referenced
    made = admin.create_acls([one.binding(user) for one in rights], request_timeout=_SECONDS)
    for future in made.values():
        try:
            answered(future, _SECONDS)
        except KafkaException as error:
            raise _told(error, what) from error


def rights(kafka: KafkaSettings) -> dict[str, list[Right]]:
    """What each user is allowed that has any right. Raises our error for Kafka's."""
    _deleted(kafka, f"nobody-{secrets.token_hex(8)}", "the rights of users can't be listed")
    admin = kafka.admin()
    try:
        found = answered(admin.describe_acls(_filter(None), request_timeout=_SECONDS), _SECONDS)
    except KafkaException as error:
        raise _told(error, "the rights of users can't be listed") from error
    users: dict[str, list[Right]] = {}
    for one in found:
        if one.principal.startswith(_PRINCIPAL) and one.permission_type is AclPermissionType.ALLOW:
            users.setdefault(one.principal.removeprefix(_PRINCIPAL), []).append(_right(one))
    return users


def take_all(kafka: KafkaSettings, user: str) -> list[Right]:
    """Takes all rights from a user, and gives those that it had. Who is connected is refused from then on. Raises our error for Kafka's."""
    return [_right(one) for one in _deleted(kafka, user, f"the rights of {user} can't be taken")]


def has_password(kafka: KafkaSettings, user: str) -> bool:
    """Whether somebody can sign in as this user with SCRAM. Raises our error for Kafka's."""
    what = f"whether there is a user {user} can't be found out"
    admin = kafka.admin()
    try:
        asked = admin.describe_cluster(include_authorized_operations=True, request_timeout=_SECONDS)
        if AclOperation.DESCRIBE not in (answered(asked, _SECONDS).authorized_operations or ()):
            raise _denied(what)
        found: Any = admin.describe_user_scram_credentials([user], request_timeout=_SECONDS)
        answered(found[user], _SECONDS)
    except KafkaException as error:
        if error.args[0].code() == KafkaError.RESOURCE_NOT_FOUND:
            return False
        raise _told(error, what) from error
    return True


def set_password(kafka: KafkaSettings, user: str) -> str:
    """Gives a user a new password, which is returned and kept nowhere. Raises our error for Kafka's."""
    password = secrets.token_urlsafe(_PASSWORD_BYTES)
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS)
    change = UserScramCredentialUpsertion(user, info, password.encode())
    admin = kafka.admin()
    future = admin.alter_user_scram_credentials([change], request_timeout=_SECONDS)[user]
    try:
        answered(future, _SECONDS)
    except KafkaException as error:
        raise _told(error, f"{user} can't be given a password") from error
    return password


def delete_password(kafka: KafkaSettings, user: str) -> bool:
    """Takes the passwords of a user, of every SCRAM mechanism: it can't sign in any more. False where it had none.

    Who is connected is asked again within `connections.max.reauth.ms` of the listener, and ends then. Raises our error for Kafka's.
    """
    admin, had_one = kafka.admin(), False
    for mechanism in (ScramMechanism.SCRAM_SHA_512, ScramMechanism.SCRAM_SHA_256):
        change = UserScramCredentialDeletion(user, mechanism)
        future = admin.alter_user_scram_credentials([change], request_timeout=_SECONDS)[user]
        try:
            answered(future, _SECONDS)
            had_one = True
        except KafkaException as error:
            if error.args[0].code() != KafkaError.RESOURCE_NOT_FOUND:
                raise _told(error, f"the password of {user} can't be taken") from error
    return had_one


def _deleted(kafka: KafkaSettings, user: str, what: str) -> list[AclBinding]:
    admin = kafka.admin()
    (future,) = admin.delete_acls([_filter(user)], request_timeout=_SECONDS).values()
    try:
        found: list[AclBinding] = answered(future, _SECONDS)
    except KafkaException as error:
        raise _told(error, what) from error
    return found


def _filter(user: str | None) -> AclBindingFilter:
    anything: Any = None  # the stubs do not know that it is allowed
    principal = anything if user is None else _PRINCIPAL + user
    kind, pattern = ResourceType.ANY, ResourcePatternType.ANY
    return AclBindingFilter(kind, anything, pattern, principal, anything, AclOperation.ANY, AclPermissionType.ANY)


def _right(binding: AclBinding) -> Right:
    prefixed = binding.resource_pattern_type is ResourcePatternType.PREFIXED
    kind, operation = ResourceType(binding.restype), AclOperation(binding.operation)
    return Right(kind.name.lower(), binding.name, operation.name.lower(), prefixed)


def _told(error: KafkaException, what: str) -> TrunklineError:
    code = error.args[0].code()
    if code == KafkaError.SECURITY_DISABLED:
        return ConfigurationError(
            f"{what}: this cluster has no authorizer, so everybody may do everything",
            hint="an embedded broker that was started with --open is to be started without; on another switch an authorizer on",
            code="kafka.no_authorizer",
        )
    if code == KafkaError.CLUSTER_AUTHORIZATION_FAILED:
        return _denied(f"{what}: {error.args[0].str()}")
    return translate(error, what)


def _denied(what: str) -> FatalError:
    return FatalError(
        what, hint="whoever looks at and changes users needs ALTER on the cluster", code="kafka.denied_cluster"
    )
