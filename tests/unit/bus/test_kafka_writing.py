"""Writing what nobody waits for, and waiting for answers: nothing of Kafka's escapes, and nothing is lost silently."""

from __future__ import annotations

import ast
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

import trunkline
from trunkline.bus.kafka import UnawaitedProducer, answered

HOUSE = Path(trunkline.__file__).parent


class BrokenProducer:
    """Hands every record back with an error, or refuses it at once."""

    def __init__(self, error: KafkaError, *, at_once: bool) -> None:
        self.error, self.at_once = error, at_once

    def produce(self, topic: str, value: bytes | None, key: bytes, on_delivery: Any) -> None:
        if self.at_once:
            raise KafkaException(self.error)

        class Sent:
            def topic(self) -> str:
                return topic

        on_delivery(self.error, Sent())

    def poll(self, _timeout: float) -> int:
        return 0


class Settings:
    """Makes such producers, and keeps what is reported."""

    def __init__(self, error: KafkaError, *, at_once: bool = False) -> None:
        self._error, self._at_once = error, at_once
        self.made: list[BrokenProducer] = []
        self.reported: list[tuple[KafkaError, str]] = []

    def producer(self, **_: Any) -> BrokenProducer:
        self.made.append(BrokenProducer(self._error, at_once=self._at_once))
        return self.made[-1]

    def report(self, error: KafkaError, *, about: str) -> None:
        self.reported.append((error, about))


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "when it was sent"])
def test_a_record_that_is_refused_is_reported_with_its_topic(at_once: bool) -> None:
    denied = KafkaError(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    settings = Settings(denied, at_once=at_once)
    writer = UnawaitedProducer(settings)  # type: ignore[arg-type]

    writer.write("status", b"report", b"key")
    writer.write("status", b"report", b"key")

    assert settings.reported == [(denied, "status")] * 2
    assert len(settings.made) == 1


def test_after_an_error_that_ends_a_producer_the_next_record_has_a_new_one() -> None:
    fatal = KafkaError(KafkaError._FATAL, "the sequence is broken", True)
    settings = Settings(fatal)
    writer = UnawaitedProducer(settings)  # type: ignore[arg-type]

    writer.write("status", b"report", b"key")
    writer.write("status", b"report", b"key")

    assert len(settings.made) == 2


def test_an_answer_that_never_comes_is_an_error_of_kafkas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.kafkaclient.answers._GRACE_SECONDS", 0.0)
    with pytest.raises(KafkaException) as late:
        answered(Future(), 0.01)

    assert late.value.args[0].code() == KafkaError._TIMED_OUT


def test_nobody_waits_for_an_administrators_answer_in_another_way() -> None:
    bare = []
    for module in [*(HOUSE / "bus").rglob("*.py"), *(HOUSE / "control").rglob("*.py")]:
        text = module.read_text(encoding="utf-8")
        if "admin" not in text or module.parent.name in {"kafka", "embedded"}:
            continue
        bare += [
            f"{module.relative_to(HOUSE)}:{node.lineno}"
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "result"
        ]
    assert bare == [], "use `answered`: a TimeoutError passes by everybody who expects Kafka's errors"
