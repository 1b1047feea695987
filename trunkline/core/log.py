"""Structured logging: JSON lines in production, readable lines in a terminal, correlation and place bound to every line."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from trunkline.core.redaction import redact, redact_all

LEVELS = ("debug", "info", "warning", "error", "critical")


def _redacted(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """No secret leaves through a log line, wherever it was put (DESIGN: secrets appear in no log)."""
    return {
        name if name in _OURS else redact(name): value if name in _OURS else redact_all(value)
        for name, value in fields.items()
    }


_OURS = frozenset({"level", "timestamp", "slot"})


class _Handler(logging.StreamHandler[Any]):
    """Writes lines; one that can't be made is told without what was in it, since that has not been redacted."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the library's name)
        kind = sys.exc_info()[0]
        if self.stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self.stream.write(
                    f"a log line of {record.name} (line {record.lineno} of {record.pathname}) could not be written: "
                    f"{kind.__name__ if kind is not None else 'unknown'}\n"
                )


def configure_logging(level: str = "info", *, style: str = "auto", slot: str | None = None) -> None:
    """Sets up structlog and the standard library's logging on standard error.

    `style` is `json`, `text`, or `auto`: text when standard error is a terminal. With a `slot`, each line says
    which of several workers wrote it.
    """

    def labelled(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return fields if slot is None else {**fields, "slot": slot}

    number = logging.getLevelNamesMapping()[level.upper()]
    as_text = style == "text" or (style == "auto" and sys.stderr.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        labelled,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    last: Any = structlog.dev.ConsoleRenderer() if as_text else structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            # Clients that take a logger of the standard library's kind give a form and what belongs in it.
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = _Handler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                # Here for text too: the console's own rendering comes after redaction, and shows the local variables.
                structlog.processors.format_exc_info,
                _redacted,
                last,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(number)
    for noisy in ("aiohttp.access", "asyncssh", "asyncio", "httpx", "httpx2"):
        logging.getLogger(noisy).setLevel(max(number, logging.WARNING))


class KafkaClientLog:
    """Takes librdkafka's own log, which it writes as facility, client and text.

    What it says of errors is told to its callback too, by which it is logged once a cause: here it would be said several times a
    second by every client.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def log(self, level: int, message: str, *arguments: object) -> None:
        """What the client calls."""
        # Of two registries that begin at once one is fenced, and begins anew.
        passing = bool(arguments) and arguments[0] in {"FAIL", "ERROR", "FATAL", "GETPID", "TXNERR"}
        self._logger.log(logging.DEBUG if passing else level, message, *arguments)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger named after its module."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def current_level() -> str:
    """The level from which on this process logs."""
    return logging.getLevelName(logging.getLogger().level).lower()


def set_level(level: str) -> None:
    """Changes the level of a running process. Raises ValueError for an unknown level."""
    if level.lower() not in LEVELS:
        raise ValueError(f"unknown level {level!r}: one of {', '.join(LEVELS)}")
    logging.getLogger().setLevel(level.upper())
