"""Commits of a sink while the broker takes none: later for a while, and then with another client."""

from __future__ import annotations

from typing import Any, cast

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from tests.clock import Clock
from trunkline.bus.kafka import KafkaSettings, KafkaUnusableError
from trunkline.bus.kafka.refusals import Said
from trunkline.bus.knownoffsets import KnownOffsets
from trunkline.bus.sink import committing
from trunkline.bus.sink.committing import Committing
from trunkline.core.errors import RetriableError


class Group:
    """A member whose commits are refused while its coordinator is away, or refuses its sign-in."""

    away = True
    taken = 0

    def __init__(self, code: int) -> None:
        self._code = code

    def commit(self, **_: Any) -> list[TopicPartition]:
        if self.away:
            raise KafkaException(KafkaError(self._code))
        self.taken += 1
        return []


class Due:
    """Tickets of which something always is due."""

    def due(self, **_: Any) -> list[TopicPartition]:
        return [TopicPartition("t", 0, 1)]

    def committed(self, _commits: Any) -> None:
        pass


@pytest.mark.parametrize("code", [KafkaError._WAIT_COORD, KafkaError._AUTHENTICATION])
def test_commits_that_are_refused_come_later_and_after_half_a_minute_the_client_is_given_up(
    code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, group = Clock(100.0), Group(code)
    monkeypatch.setattr(committing, "time", clock)
    commits = Committing(
        "p", KafkaSettings("kafka:9092"), cast(Any, Due()), cast(Any, None),
        known=KnownOffsets(), group_member=lambda: cast(Any, group), failed=lambda _error: None, stopped=lambda: False,
    )  # fmt: skip
    for _ in range(3):
        commits.commit_if_due()
        clock.now += 9
    assert commits.cause is not None
    assert commits.cause.since == 100.0, "the first refusal of those in a row"
    group.away = False
    commits.commit_if_due()
    assert group.taken == 1
    assert commits.cause is None
    group.away = True
    for _ in range(3):
        clock.now += 10
        commits.commit_if_due()
    clock.now += 11
    with pytest.raises(RetriableError, match="no commit was taken for 30 s"):
        commits.commit_if_due()


class Watch:
    """Knows whether the cluster can be used."""

    error: KafkaUnusableError | None = None

    def heard(self, _said: Said) -> None:
        pass

    def trouble(self) -> KafkaUnusableError | None:
        return self.error


def test_while_kafka_is_known_to_be_away_no_client_is_asked_to_commit_which_it_would_wait_for() -> None:
    watch, group = Watch(), Group(KafkaError._WAIT_COORD)
    group.away = False
    commits = Committing(
        "p", KafkaSettings("kafka:9092", health=watch), cast(Any, Due()), cast(Any, None),
        known=KnownOffsets(), group_member=lambda: cast(Any, group), failed=lambda _error: None, stopped=lambda: False,
    )  # fmt: skip
    watch.error = KafkaUnusableError("the Kafka broker has gone away", code="kafka.away")

    commits.commit_if_due()
    with pytest.raises(KafkaException, match="the Kafka broker has gone away"):
        commits.commit()

    assert group.taken == 0
    assert commits.cause is not None
    watch.error = None
    commits.commit()
    assert group.taken == 1
