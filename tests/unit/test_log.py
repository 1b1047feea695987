"""What stands in the log."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from trunkline.core.log import KafkaClientLog, configure_logging, get_logger
from trunkline.core.redaction import MARK, learn


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


@pytest.mark.parametrize("style", ["json", "text"])
def test_no_secret_stands_in_a_line_whatever_was_put_into_it(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, style: str
) -> None:
    request.getfixturevalue("as_json")
    configure_logging("debug", style=style)
    secret = 'log"canary\\of the log'
    learn(secret)

    class Shown:
        def __repr__(self) -> str:
            return f"Shown({secret!r})"

    def broken(local: str) -> None:
        raise ValueError(f"can't use {local}")

    try:
        broken(secret)
    except ValueError:
        get_logger("a").exception("broke", headers={"Authorization": secret}, deep=[{"x": (Shown(),)}], **{secret: 1})
    get_logger("a").debug(secret, bytes=secret.encode(), object=Shown())
    logging.getLogger("b").warning("of the library: %s %r", secret, secret)
    said = capsys.readouterr().err
    assert "canary" not in said
    assert said.count(MARK) >= 9


def test_a_line_that_can_not_be_made_is_told_without_what_was_in_it(
    capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("as_json")
    logging.getLogger("b").warning("%d", "canary-that-is-no-number")
    said = capsys.readouterr().err
    assert "could not be written: TypeError" in said
    assert "canary" not in said


CLIENTS = {"Producer", "Consumer", "AdminClient"}


def test_no_client_of_kafka_writes_its_own_log_as_it_likes() -> None:
    found = []
    for path in sorted(Path("trunkline").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.func.id not in CLIENTS:
                continue
            loggers = [ast.unparse(word.value) for word in call.keywords if word.arg == "logger"]
            found.append((str(path), call.lineno, loggers[0] if loggers else "none"))
    assert found
    assert [each for each in found if not each[2].startswith("KafkaClientLog(")] == []
