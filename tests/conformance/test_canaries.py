"""Secrets that are told in every way are shown in none: not by logs, causes, dead letters, the trace, or metrics.

Each connector meets a peer that answers with the secrets which it was sent, in every encoding, or breaks off in one of the ways in which
peers do. What it says then is taken through what the engine makes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import secrets
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog
from prometheus_client import generate_latest

from tests.conformance.canary_cases import CASES, VARIABLE, Case
from tests.conformance.canary_peers import FAULTS, Peer, serving
from tests.unit.core.encodings_of_secrets import ENCODINGS, canaries, remains
from trunkline.bus.accounting.trace import TraceBatch
from trunkline.bus.deadletters import Failure, dead_letter_headers
from trunkline.bus.delivery.calls import verdicts_of
from trunkline.bus.worker.opening import open_plugin
from trunkline.cli.output import Format, error_data, error_text, rendered
from trunkline.core import redaction
from trunkline.core.cause import Cause
from trunkline.core.contracts import Batch, PluginContext, Sink, Source
from trunkline.core.errors import DefectError, TrunklineError
from trunkline.core.log import configure_logging, get_logger
from trunkline.core.plugins import load_plugin
from trunkline.core.testing.observation import environment
from trunkline.core.testing.sink_suite import event_of
from trunkline.core.verdicts import Ok

SHORT = ("401", "500", "200 with a refusal", "redirect", "reset")
"""The faults that `make test` has; the others take as long again, and find what these do."""


class Shown:
    """All that left the process, as text."""

    def __init__(self, log: io.StringIO) -> None:
        self._log = log
        self._said: list[str] = []

    @property
    def text(self) -> str:
        return "\n".join([self._log.getvalue(), *self._said, generate_latest().decode()])

    def error(self, error: BaseException) -> None:
        """An error by the ways in which errors are told: to status, API, command line, audit, dead letters."""
        get_logger("canaries").error("failed", reason=str(error), exc_info=error)
        self._said += [error_text(error), rendered(error_data(error), Format.JSON)]
        if isinstance(error, TrunklineError):
            cause = Cause.of(error, since=time.time())
            self._said += [str(error), repr(error), str(error.as_dict()), rendered(cause.as_dict(), Format.JSON)]
            self.failure(error.code, error.message)

    def failure(self, code: str, reason: str) -> None:
        """A record that failed: its dead letter, and its hop in the trace."""
        failure = Failure("SINK", code, reason, place=reason)
        for found in (failure, Failure.exhausted(8, (code, reason), None)):
            headers = dead_letter_headers(
                (), pipeline="p", task="t", topic="orders", partition=0, offset=0, failure=found
            )
            self._said.append(str(headers))
            self.traced(found.told)
        self._said.append(repr(failure))

    def traced(self, detail: str | None) -> None:
        """A detail in the trace."""
        trace = TraceBatch("p", "Sink", "w")
        trace.add("orders", 0, 1, "correlation", "delivered", detail)
        self._said += [orjson.dumps(orjson.loads(one)).decode() for one in trace.drain()]


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests() -> None:
    redaction._REDACTOR.__init__()  # type: ignore[misc]


@contextmanager
def watched() -> Iterator[Shown]:
    """Everything is logged, as in a worker that was told to log all."""
    root, log = logging.getLogger(), io.StringIO()
    handlers, level, stderr = root.handlers[:], root.level, sys.stderr
    sys.stderr = log
    try:
        configure_logging("debug", style="json")
        for quiet in ("asyncssh", "asyncio", "httpx"):
            logging.getLogger(quiet).setLevel(logging.DEBUG)
        yield Shown(log)
    finally:
        sys.stderr, root.handlers[:] = stderr, handlers
        root.setLevel(level)
        structlog.reset_defaults()


async def _meet(case: Case, peer: Peer, secret: str, folder: Path, shown: Shown, broken: str | None) -> None:
    """Opens the connector, has it do its work once, and shows what became of that."""
    plugin = load_plugin(case.kind, case.connector)  # type: ignore[arg-type]
    config, connection = case.made(peer.url)
    try:
        made: Any = plugin(
            plugin.settings_type.model_validate(config),
            plugin.connection_type.model_validate(connection) if plugin.connection_type is not None else None,  # type: ignore[call-arg]
        )
    except TrunklineError as error:
        shown.error(error)
        return
    get_logger("canaries").debug("made", settings=made.settings, connection=connection, plugin=made)
    if broken is not None:
        _break(made, broken, secret)
    try:
        await open_plugin(made, PluginContext("", "canaries", folder, get_logger("canaries")))
        get_logger("canaries").debug("opened", settings=made.settings, secret=secret, plugin=vars(made))
        await _work(made, shown)
    except TrunklineError as error:
        shown.error(error)
    finally:
        await made.close()


async def _work(made: Sink | Source, shown: Shown) -> None:
    if isinstance(made, Sink):
        batch = Batch([event_of({"id": "1"}, number) for number in range(2)], name="canaries")
        for verdict in await verdicts_of(made, batch, "canaries"):
            get_logger("canaries").info("verdict", verdict=verdict)
            if isinstance(verdict, Ok):
                shown.traced(verdict.reference)
            else:
                shown.failure(verdict.code, verdict.reason)
        return
    try:
        found = await made.poll(next(iter(made.splits())), None)
    except TrunklineError:
        raise
    except Exception as error:
        get_logger("canaries").exception("the source raised")
        raise DefectError(f"{type(error).__name__}: {error}", code="source.broken") from error
    for rejected in found.rejected:
        shown.failure("source.rejected", f"{rejected.reason} {rejected.place}")


def _break(made: Any, encoding: str, secret: str) -> None:
    """From now on the connector raises what it should not, with a secret in it."""

    name = "open" if encoding == "raw" else "write" if isinstance(made, Sink) else "poll"
    own = getattr(made, name)

    async def raises(*arguments: object) -> None:
        with contextlib.suppress(TrunklineError):
            await own(*arguments)
        raise ValueError(ENCODINGS[encoding](secret), {"token": secret})

    setattr(made, name, raises)


def _meeting(case: Case, fault: str, found: Sequence[str], folder: Path, broken: str | None = None) -> None:
    for canary in found:
        issued = f"issued-{secrets.token_urlsafe(24)}" if case.tokens else None
        for issues in dict.fromkeys((None, issued)):
            redaction._REDACTOR.__init__()  # type: ignore[misc]  # each begins in a new process
            with watched() as shown:
                secret = asyncio.run(_one(case, fault, canary, issues, folder, shown, broken))
            text = shown.text
            for told in filter(None, (secret, issues)):
                left = remains(told, text)
                assert not left, f"{told!r} is shown as {left[0]!r} in {_around(text, left[0])}"


async def _one(
    case: Case, fault: str, canary: str, issues: str | None, folder: Path, shown: Shown, broken: str | None
) -> str:
    async with serving(Peer(fault, [], issues)) as peer:
        secret = case.secret(canary, peer.url)
        peer.secrets.append(secret)
        with environment({VARIABLE: secret}):
            await _meet(case, peer, secret, folder, shown, broken)
        return secret


def _around(text: str, found: str) -> str:
    at = text.index(found)
    return text[max(0, at - 300) : at + len(found) + 100]


def _fit(case: Case, count: int) -> list[str]:
    """Canaries that the connector can have, `count` of them where there are so many: of each kind one first."""
    fitting = [one for one in canaries() if not case.header or (one.isascii() and one.isprintable() and " " not in one)]
    if case.header:
        fitting = [one for one in fitting if not set(one) & set('\\"<>{}^`|%&;+#?/')]
    step = max(1, len(fitting) // count)
    return fitting[::step][:count]


@pytest.mark.parametrize("fault", SHORT)
@pytest.mark.parametrize("name", CASES)
def test_no_secret_is_shown_whatever_the_other_system_answers(name: str, fault: str, tmp_path: Path) -> None:
    _meeting(CASES[name], fault, _fit(CASES[name], 1), tmp_path)


@pytest.mark.parametrize("name", CASES)
def test_no_secret_is_shown_whatever_the_connector_raises(name: str, tmp_path: Path) -> None:
    for encoding in ("raw", "JSON"):
        _meeting(CASES[name], "500", _fit(CASES[name], 1), tmp_path, encoding)


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", CASES)
def test_none_of_sixty_secrets_is_shown_by_any_connector_at_any_fault(name: str, fault: str, tmp_path: Path) -> None:
    _meeting(CASES[name], fault, _fit(CASES[name], CASES[name].most), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", CASES)
def test_none_of_sixty_secrets_is_shown_in_any_encoding_that_a_connector_raises(
    name: str, encoding: str, tmp_path: Path
) -> None:
    _meeting(CASES[name], "500", _fit(CASES[name], CASES[name].most), tmp_path, encoding)
