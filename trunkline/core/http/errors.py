"""What can go wrong with a request, told apart by whether the request may have had an effect."""

from __future__ import annotations

from trunkline.core.errors import ConfigurationError, RetriableError


class NotSentError(RetriableError):
    """No connection could be made (name lookup, TCP, TLS, or no free connection in time): the request had no effect."""

    code = "http.not_sent"


class NoAnswerError(RetriableError):
    """The request went out, in whole or in part, and no complete answer came back: its effect is unknown."""

    code = "http.no_answer"


class AnswerTooLargeError(NoAnswerError):
    """The answer is larger than the options allow, after decompression. `status` is what its status line said."""

    code = "http.answer_too_large"

    def __init__(self, message: str, *, status: int, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.status = status


class AddressRefusedError(ConfigurationError):
    """The request was not made: its address is private and not allowed by name, or URL or headers are malformed."""

    code = "http.address_refused"
