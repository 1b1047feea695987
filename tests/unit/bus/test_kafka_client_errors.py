"""What Kafka's clients report is in the log: at warning, once a cause, with the pipelines that it touches, and never a flood."""

from __future__ import annotations

from typing import Any

import pytest
from confluent_kafka import KafkaError

from trunkline.bus.kafka.clienterrors import REPEAT_SECONDS, SOON_SECONDS, ClientErrors
from trunkline.bus.kafka.refusals import Said

REFUSED = "10.0.0.1:9092/1: Connect to ipv4#10.0.0.1:9092 failed: Connection refused (after 0ms in state CONNECT)"
DENIED = "sasl_ssl://10.0.0.1:9092/1: SASL authentication error: invalid credentials (after 9ms in state AUTH_REQ)"


class Lines:
    """A logger that keeps what it is told."""

    def __init__(self) -> None:
        self.warnings: list[dict[str, Any]] = []

    def warning(self, _event: str, **fields: Any) -> None:
        self.warnings.append(fields)

    def debug(self, _event: str, **_fields: Any) -> None:
        """Nobody reads it."""


class Reports:
    """Clients that report at a time of the test's choice."""

    def __init__(self) -> None:
        self.now = 100.0
        self.lines = Lines()
        self._errors = ClientErrors(self.lines, lambda: self.now)

    def __call__(self, line: str, pipeline: str = "", code: int = KafkaError._TRANSPORT) -> None:
        self._errors.tell(Said.of(code, line), "10.0.0.1:9092", pipeline)


@pytest.fixture
def reports() -> Reports:
    return Reports()


def test_a_cause_is_logged_once_with_code_address_and_pipeline(reports: Reports) -> None:
    for _ in range(1000):
        reports(REFUSED, "orders")

    (line,) = reports.lines.warnings
    assert (line["code"], line["address"], line["pipeline"]) == ("kafka.refused", "10.0.0.1:9092", "orders")
    assert "Connection refused" in line["error"]


def test_another_cause_is_logged_at_once(reports: Reports) -> None:
    reports(REFUSED)
    reports(DENIED, code=KafkaError._AUTHENTICATION)

    assert [line["code"] for line in reports.lines.warnings] == ["kafka.refused", "kafka.authentication"]


def test_soon_after_it_is_said_whom_it_touches(reports: Reports) -> None:
    reports(REFUSED)
    for number in range(200):
        reports(REFUSED, f"p{number:03}")
    reports.now += SOON_SECONDS
    reports(REFUSED, "last")

    first, again = reports.lines.warnings
    assert "pipelines" not in first
    assert again["times"] == 201
    assert again["pipelines"] == "last, p000, p001, p002, p003 and 196 more"


def test_one_that_lasts_is_logged_once_a_minute(reports: Reports) -> None:
    for _ in range(10 * 60):
        reports(REFUSED, "orders")
        reports.now += 1.0

    assert 10 <= len(reports.lines.warnings) <= 12
    assert reports.lines.warnings[-1]["times"] == REPEAT_SECONDS


def test_that_no_broker_is_connected_is_no_cause_of_its_own(reports: Reports) -> None:
    reports("3/3 brokers are down", "orders", KafkaError._ALL_BROKERS_DOWN)

    assert reports.lines.warnings == []


def test_what_has_no_kind_of_its_own_is_logged_all_the_same(reports: Reports) -> None:
    reports("Fatal error: the producer was fenced", "orders", KafkaError._FATAL)

    (line,) = reports.lines.warnings
    assert line["error"] == "Fatal error: the producer was fenced"
