"""Whether a cluster can be used with these settings, now: asked with a client made for it, which signs in and looks up names anew.

A client that has been connected for long proves less: it goes on with a password that was changed, until its connection ends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from confluent_kafka import ConsumerGroupState, KafkaError, KafkaException

from trunkline.bus.kafka.examine import examined
from trunkline.bus.kafka.refusals import Refusal, Said, classify, refusal
from trunkline.bus.kafka.settings import KafkaSettings
from trunkline.kafkaclient import AdminClient

SURE_SECONDS: Final = 1.5
"""A refusal that does not pass by itself, such as a wrong password, is believed after this long."""
_STEP: Final = 0.05
_MORE_SECONDS: Final = 0.5
_EACH_SECONDS: Final = 1.0
_QUIET: Final = {"reconnect.backoff.ms": 200, "reconnect.backoff.max.ms": 1000, "log.connection.close": True}


class _Words:
    """Collects what a client says of itself, by callback and by log."""

    def __init__(self) -> None:
        self.said: list[Said] = []

    def error(self, error: KafkaError) -> None:
        """As `error_cb`."""
        self.said.append(Said.of(error.code(), error.str()))

    def log(self, _level: int, _form: str, *parts: object) -> None:
        """As `logger`. Connections that were closed are only told here."""
        if parts and parts[0] == "FAIL":
            self.said.append(Said.of(KafkaError._TRANSPORT, str(parts[-1])))  # noqa: SLF001 (it has no other name)


def ping(settings: KafkaSettings, timeout: float = 10.0) -> None:
    """Asks the cluster who its brokers are. Raises `KafkaUnusableError` when it does not say in `timeout` seconds.

    One broker that answers is enough. What passes by itself (a broker that is starting) is waited for; what does not is said early.
    """
    words = _Words()
    admin: AdminClient = settings.client(AdminClient, {**_QUIET, "error_cb": words.error, "logger": words})
    begun = time.monotonic()
    found = _ask(admin, settings, words, timeout)
    listed = [said.address for said in words.said if said.listed]
    if found is not None and found.kind.passes:
        found = _each_broker(admin, found, listed)
    if found is None:
        return
    if not found.detail:
        found = replace(found, detail=f"no answer in {time.monotonic() - begun:.0f} s")
    raise found.error


def _each_broker(admin: AdminClient, found: Refusal, listed: Sequence[str]) -> Refusal | None:
    """What `found` means where the cluster did say who its brokers are; None where one of them can be used.

    `listed` are addresses from the cluster that can't be reached.
    """
    try:
        brokers = admin.list_topics(timeout=_EACH_SECONDS).brokers
        listed = listed or [f"{one.host}:{one.port}" for one in brokers.values()]
        # Sent to each broker at its own address. Asked for groups in no living state, so that the answers are short.
        asked = admin.list_consumer_groups(states={ConsumerGroupState.DEAD}, request_timeout=_EACH_SECONDS)
        errors = asked.result(_EACH_SECONDS + _MORE_SECONDS).errors
        if len([error for error in errors if not _was_answered(error)]) < len(brokers):
            return None
    except (KafkaException, TimeoutError):
        if not listed:
            return found  # it does not even say who they are
    return refusal("kafka.advertised", listed[0], found.detail or "no answer")


def _was_answered(error: KafkaError) -> bool:
    """Whether a broker said so itself: that it can't or may not do this. librdkafka's own codes are negative."""
    return error.code() > 0 or error.code() == KafkaError._UNSUPPORTED_FEATURE  # noqa: SLF001


def _ask(admin: AdminClient, settings: KafkaSettings, words: _Words, timeout: float) -> Refusal | None:
    """Why nothing was answered; None where something was."""
    future = admin.describe_cluster(request_timeout=timeout)
    begun = time.monotonic()
    looked = False
    while not future.done() and time.monotonic() - begun < timeout + _MORE_SECONDS:
        admin.poll(_STEP)
        found = classify(words.said, settings.bootstrap)
        if found is not None and not looked and time.monotonic() - begun > SURE_SECONDS:
            looked, seen = True, examined(found, settings.options)
            if not seen.kind.passes and not future.done():
                return seen
    try:
        if future.result(0).nodes:
            return None
    except TimeoutError:
        pass
    except KafkaException as error:
        if _was_answered(error.args[0]):
            return None
    found = classify(words.said, settings.bootstrap)
    if found is None:
        return refusal("kafka.timeout", settings.bootstrap, "")
    return examined(found, settings.options)
