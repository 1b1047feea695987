"""What a user of a broker with an authorizer may do, granted and taken away while it is at work."""

from __future__ import annotations

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from trunkline.bus.kafka import KafkaSettings

KINDS = {
    "topics": ResourceType.TOPIC,
    "transactions": ResourceType.TRANSACTIONAL_ID,
    "groups": ResourceType.GROUP,
}
SECONDS = 15.0


class Rights:
    """The password and the rights of one user, changed by somebody who may (`settings`). Its calls block."""

    def __init__(self, settings: KafkaSettings, user: str) -> None:
        self._admin = settings.admin()
        self._user = user

    def set_password(self, password: str) -> None:
        """Gives the user a password; connections that stand are not asked for it until they sign in again."""
        credential = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        user = UserScramCredentialUpsertion(self._user, credential, password.encode())
        self._admin.alter_user_scram_credentials([user])[self._user].result(SECONDS)

    def grant(self, namespace: str, *kinds: str) -> None:
        """Grants everything on what begins with the name, of some of KINDS."""
        bindings = [
            self._binding(KINDS[kind], namespace, ResourcePatternType.PREFIXED, AclOperation.ALL, allow=True)
            for kind in kinds
        ]
        for future in self._admin.create_acls(bindings).values():
            future.result(SECONDS)

    def deny(self, kind: str, name: str, operation: AclOperation) -> None:
        """Forbids an operation on one thing, whatever else is granted."""
        denied = self._binding(KINDS[kind], name, ResourcePatternType.LITERAL, operation, allow=False)
        for future in self._admin.create_acls([denied]).values():
            future.result(SECONDS)

    def deny_no_more(self, kind: str, name: str, operation: AclOperation) -> None:
        """Takes `deny` back."""
        denied = AclBindingFilter(
            KINDS[kind],
            name,
            ResourcePatternType.LITERAL,
            f"User:{self._user}",
            "*",
            operation,
            AclPermissionType.DENY,
        )
        for future in self._admin.delete_acls([denied]).values():
            future.result(SECONDS)

    def _binding(
        self, kind: ResourceType, name: str, pattern: ResourcePatternType, operation: AclOperation, *, allow: bool
    ) -> AclBinding:
        permission = AclPermissionType.ALLOW if allow else AclPermissionType.DENY
        return AclBinding(kind, name, pattern, f"User:{self._user}", "*", operation, permission)
