"""Kafka's errors of a call as ours, sorted by what can be done about them."""

from __future__ import annotations

from typing import Final

from confluent_kafka import KafkaError, KafkaException

from trunkline.bus.kafka.refusals import KINDS, KafkaUnusableError, code_of
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError, TrunklineError

_DENIED: Final = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED: (
        "kafka.denied_topic",
        "grant its principal READ on the topics that are read, WRITE on those that are written, and DESCRIBE on both",
    ),
    KafkaError.GROUP_AUTHORIZATION_FAILED: (
        "kafka.denied_group",
        "grant its principal READ on the consumer groups of the namespace (a prefixed ACL)",
    ),
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: (
        "kafka.denied_cluster",
        "grant its principal CREATE on the cluster or on the topics' prefix, or have somebody create what is missing",
    ),
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: (
        "kafka.denied_transactional_id",
        "grant its principal WRITE on the transactional ids of the namespace (a prefixed ACL)",
    ),
}
"""What the authorizer refuses, and what to grant (https://kafka.apache.org/documentation/#operations_resources_and_protocols)."""
_CONNECTION: Final = {
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,  # noqa: SLF001 (librdkafka's own codes have no other name)
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError._SSL,  # noqa: SLF001
}
SETTLING = {
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.NOT_COORDINATOR,
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001
    KafkaError._NOENT,  # noqa: SLF001 ("no leaders found")
}
"""What a broker says while it begins or its leaders change, though librdkafka does not call it retriable."""
_PASSING: Final = SETTLING | {
    KafkaError._TRANSPORT,  # noqa: SLF001
    KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
    KafkaError._RESOLVE,  # noqa: SLF001
    KafkaError._TIMED_OUT,  # noqa: SLF001
    KafkaError._PARTITION_EOF,  # noqa: SLF001 (no error at all)
}
_BROKEN_OPTIONS = {KafkaError._INVALID_ARG, KafkaError.UNSUPPORTED_SASL_MECHANISM}  # noqa: SLF001


def _beneath(fatal: KafkaError) -> int:
    """The code of the refusal that ended a client for good, which only its words tell; else the code that it has.

    So ends a member of a group whose right is taken away (KIP-848): `Fatal error: Broker: Group authorization failed: …`.
    """
    return next((code for code in _DENIED if KafkaError(code).str() in fatal.str()), fatal.code())


def passes(error: KafkaError, *, member: bool = True) -> bool:
    """Whether what a consumer gives in the place of a record is healed by the client: it goes on reading when it can.

    A reader that is no `member` of its group reads on though the group is denied to it: the client asks for its coordinator anyway.
    A member whose sign-in is refused signs in again and again; that it is refused, `KafkaHealth` tells.
    """
    if error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED:
        return not member
    if error.code() in {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}:  # noqa: SLF001
        return member
    return bool(error.retriable()) or error.code() in _PASSING


def translate(error: KafkaException | KafkaError, what: str, *, where: str | None = None) -> TrunklineError:
    """One of our errors for Kafka's: what a person must mend is fatal, what may pass is retriable.

    That the cluster can't be reached or refuses us is retriable too, since clients try on by themselves. A call seldom knows why:
    `KafkaHealth` does.
    """
    cause = error.args[0] if isinstance(error, KafkaException) else error
    code = cause.code() if cause.code() != KafkaError._FATAL else _beneath(cause)  # noqa: SLF001
    text = f"{what}: {cause.str()}"
    if code in _DENIED:
        named, hint = _DENIED[code]
        return FatalError(text, where=where, hint=hint, code=named)
    if code == KafkaError.POLICY_VIOLATION:
        return FatalError(
            text, where=where, hint="ask who runs the cluster what its policy allows", code="kafka.policy"
        )
    if code in _CONNECTION:
        kind = KINDS[code_of(code, cause.str()) or "kafka.disconnected"]
        return KafkaUnusableError(text, where=where, hint=kind.hint, code=kind.code)
    if code in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}:  # noqa: SLF001
        return RetriableError(text, where=where, code="kafka.fenced")
    if code in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001
        return FatalError(text, where=where, hint="create the topic, or apply its manifest", code="kafka.unknown_topic")
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return FatalError(text, where=where, hint="raise the topic's max.message.bytes", code="kafka.too_large")
    if code in _BROKEN_OPTIONS:
        return ConfigurationError(text, where=where, hint="check the Kafka connection options", code="kafka.options")
    return RetriableError(text, where=where, code="kafka.unavailable")
