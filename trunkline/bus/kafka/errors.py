"""Kafka's errors as ours, sorted by what can be done about them."""

from __future__ import annotations

from confluent_kafka import KafkaError, KafkaException

from trunkline.core.errors import ConfigurationError, FatalError, RetriableError, TrunklineError

_DENIED = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
    KafkaError.SASL_AUTHENTICATION_FAILED,
    KafkaError._AUTHENTICATION,  # noqa: SLF001
    KafkaError.POLICY_VIOLATION,
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
_BROKEN_OPTIONS = {KafkaError._INVALID_ARG, KafkaError.UNSUPPORTED_SASL_MECHANISM}  # noqa: SLF001


def translate(error: KafkaException | KafkaError, what: str, *, where: str | None = None) -> TrunklineError:
    """One of our errors for Kafka's: what a person must mend is fatal, what may pass is retriable."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    code = cause.code()
    text = f"{what}: {cause.str()}"
    if code in _DENIED:
        return FatalError(
            text, where=where, hint="grant the pipeline's principal the missing right", code="kafka.denied"
        )
    if code in {KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH}:  # noqa: SLF001
        return RetriableError(text, where=where, code="kafka.fenced")
    if code in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001
        return FatalError(text, where=where, hint="create the topic, or apply its manifest", code="kafka.unknown_topic")
    if code == KafkaError.MSG_SIZE_TOO_LARGE:
        return FatalError(text, where=where, hint="raise the topic's max.message.bytes", code="kafka.too_large")
    if code in _BROKEN_OPTIONS:
        return ConfigurationError(text, where=where, hint="check the Kafka connection options", code="kafka.options")
    return RetriableError(text, where=where, code="kafka.unavailable")
