"""What stands in the log."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from trunkline.core.log import KafkaClientLog, configure_logging, get_logger


@pytest.fixture
def as_json() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging("warning", style="json")
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize("logger", [get_logger("bus"), logging.getLogger("registry")], ids=["ours", "standard"])
def test_a_line_of_the_kafka_client_is_one_text(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, logger: logging.Logger
) -> None:
    request.getfixturevalue("as_json")  # after the capture began: the log goes to the standard error of now
    client = KafkaClientLog(logger)
    client.log(logging.WARNING, "%s [%s] %s", "METADATAUPDATE", "rdkafka#producer-1", "100% of it %s")
    client.log(logging.ERROR, "%s [%s] %s", "FAIL", "rdkafka#producer-1", "said when debugging only")
    (line,) = capsys.readouterr().err.splitlines()
    said = json.loads(line)
    assert said["event"] == "METADATAUPDATE [rdkafka#producer-1] 100% of it %s"
    assert "positional_args" not in said
