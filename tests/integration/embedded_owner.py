"""An embedded broker as its owner and its users see it, and waiting for what others do with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from confluent_kafka import Consumer, KafkaException
from typer.testing import CliRunner, Result

from trunkline.bus.embedded import EmbeddedKafka, RunningBroker
from trunkline.bus.kafka import KafkaSettings
from trunkline.cli.main import app
from trunkline.control.brokerusers import NewUser


def running(broker: EmbeddedKafka) -> RunningBroker:
    assert broker.running is not None
    return broker.running


def settings(broker: RunningBroker, options: dict[str, str] | None = None) -> KafkaSettings:
    return KafkaSettings(broker.bootstrap, broker.client_options if options is None else options)


def until(condition: Callable[[], Any], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come to be in {seconds:g} s"
        time.sleep(0.05)


def call(*arguments: str, **environment: str | None) -> Result:
    return CliRunner(env=environment).invoke(app, list(arguments))


def no_registry() -> Any:
    raise AssertionError("no schema is needed")


def client(made: NewUser, **more: Any) -> dict[str, Any]:
    """A client of a user, silent about what it is refused: the tests are about that."""
    quiet = {"error_cb": lambda _error: None, "log_level": 0}
    return {"bootstrap.servers": made.bootstrap, **made.options, **quiet, **more}


def consumed(made: NewUser, topic: str, group: str) -> bytes | int | None:
    """Reads a topic as a member of a group: its first value, or the code of what it is refused."""
    protocol = {"group.protocol": "consumer", "auto.offset.reset": "earliest"}
    consumer = Consumer(client(made, **{"group.id": group, **protocol}))
    try:
        consumer.subscribe([topic])
        message = consumer.poll(120)
        assert message is not None
        error = message.error()
        return message.value() if error is None else int(error.code())
    except KafkaException as refused:
        return int(refused.args[0].code())
    finally:
        consumer.close()
