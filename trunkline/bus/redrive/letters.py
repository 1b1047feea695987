"""Dead letters as expressions and people see them: the value decoded, and the failure as `letter`."""

from __future__ import annotations

import base64
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from trunkline.bus.deadletters import ATTEMPTS, EXCEPTION, FINGERPRINT, MESSAGE, STAGE, DeadLetter
from trunkline.core.errors import RejectedError
from trunkline.core.event import Event
from trunkline.core.expressions import (
    BOOL,
    INT,
    STANDARD,
    STRING,
    TIMESTAMP,
    Expression,
    Variable,
    compile_expression,
    object_of,
)
from trunkline.registry.codec import Decoder

LETTER = object_of(
    "letter",
    {
        "reason": STRING,
        "code": STRING,
        "stage": STRING,
        "first_failed_at": TIMESTAMP,
        "attempts": INT,
        "redrives": INT,
        "fingerprint": STRING,
        "place": STRING,
    },
)
"""The failure. `attempts` are those of the last delivery, `redrives` how often the record was sent again before."""
VARIABLES = (*STANDARD, Variable("letter", LETTER, "ctx.letter"))


class FailedEvent(Event):
    """The event in a dead letter, with the failure beside it."""

    _letter: dict[str, Any] | None = None

    def __init__(self, value: Any, source: DeadLetter) -> None:
        topic, partition, offset = source.first_origin
        super().__init__(
            value,
            raw=source.value,
            raw_key=source.key,
            headers=[(name, content or b"") for name, content in source.headers],
            topic=topic,
            partition=partition,
            offset=offset,
            timestamp=source.timestamp,
        )
        self._source = source

    @property
    def letter(self) -> dict[str, Any]:
        """The failure as expressions see it."""
        if self._letter is None:
            source = self._source
            attempts = source.header(ATTEMPTS)
            self._letter = {
                "reason": source.header(MESSAGE),
                "code": source.header(EXCEPTION),
                "stage": source.header(STAGE),
                "first_failed_at": datetime.fromtimestamp(source.failed_at / 1000, UTC),
                "attempts": int(attempts) if attempts.isdigit() else 0,
                "redrives": source.redrives,
                "fingerprint": source.header(FINGERPRINT),
                "place": source.place,
            }
        return self._letter


def letter_expression(text: str, where: str) -> Expression:
    """An expression over a dead letter: all that expressions of manifests see, and `letter`. Raises `ConfigurationError`."""
    return compile_expression(text, variables=VARIABLES, where=where)


class LetterFilter:
    """Whether an expression is true of a dead letter. One that can't be evaluated on a dead letter is not true of it, and counted:
    a field that is spelt wrongly would look like no letter at all."""

    def __init__(self, text: str, decoder_of: Callable[[str], Decoder]) -> None:
        self.unjudged = 0
        self.first_unjudged = ""
        """Place and reason of the first letter on which it could not be evaluated."""
        self._holds = compile_expression(text, expect=BOOL, variables=VARIABLES, where="--filter")
        self._reads_value = any(path[0] == "event" for path in self._holds.names)
        self._decoder_of = decoder_of

    def __call__(self, letter: DeadLetter) -> bool:
        """Whether it is true of this letter."""
        value, undecodable = (
            decoded_value(letter.value, self._decoder_of(letter.first_origin[0])) if self._reads_value else (None, None)
        )
        try:
            return self._holds.fn(value, FailedEvent(value, letter)) is True
        except RejectedError as error:
            self.unjudged += 1
            self.first_unjudged = self.first_unjudged or f"{letter.place}: {undecodable or error.message}"
            return False


def compile_filter(text: str, decoder_of: Callable[[str], Decoder]) -> LetterFilter:
    """The filter that an expression means. `decoder_of` gives the decoder of a topic. Raises `ConfigurationError` for a wrong one."""
    return LetterFilter(text, decoder_of)


def decoded_value(value: bytes | None, decoder: Decoder) -> tuple[Any, str | None]:
    """The datum of a value; where it is no Avro of ours, its text (or base64) and the reason."""
    if value is None:
        return None, None
    try:
        return decoder.decode(value)[1], None
    except RejectedError as error:
        return text_of(value), error.message


def text_of(content: bytes | None) -> str | None:
    """Bytes as text, or as base64 where they are no UTF-8."""
    if content is None:
        return None
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(content).decode("ascii")
