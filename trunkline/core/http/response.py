"""What came back, and what it means for a record."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from trunkline.core.errors import FatalError, RetriableError
from trunkline.core.redaction import excerpt, redact
from trunkline.core.verdicts import Dead, Ok, Retry, Verdict

EXCERPT = 300
"""Characters of an answer's body that messages quote at most."""

_RETRIED = frozenset({408, 421, 423, 425, 429})
_MAYBE_OURS = frozenset({301, 302, 303, 307, 308, 402, 403, 404, 405, 407, 410, 451})


class HttpResponse:
    """An answer, read to its end. `headers` are case-insensitive; `content` is decompressed.

    `request` is what was asked, for messages: method and address without the query.
    """

    __slots__ = ("content", "headers", "reason", "request", "status")

    def __init__(
        self, status: int, headers: Mapping[str, str], content: bytes, *, request: str, reason: str = ""
    ) -> None:
        self.status = status
        self.headers = headers
        self.content = content
        self.request = request
        self.reason = reason

    @property
    def ok(self) -> bool:
        """Whether the status is 2xx."""
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        """The body as UTF-8; bytes that are none are replaced."""
        return self.content.decode("utf-8", "replace")

    def json(self) -> Any:
        """The body as JSON. Raises `RetriableError` (`http.not_json`) that quotes its beginning: a proxy's page may pass."""
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError as error:
            raise RetriableError(
                f"{self.summary}: the body is not JSON ({error.msg} at line {error.lineno})", code="http.not_json"
            ) from None

    def retry_after(self) -> float | None:
        """Seconds from `Retry-After` (RFC 9110, section 10.2.3), or None when it is absent or can't be read.

        A date counts from the answer's own `Date`, so that the two machines' clocks need not agree.
        """
        value = self.headers.get("Retry-After", "").strip()
        if not value:
            return None
        if value.isascii() and value.isdigit():
            return float(value[:10])
        moment = _http_date(value)
        if moment is None:
            return None
        now = _http_date(self.headers.get("Date", "")) or datetime.now(UTC)
        return max(0.0, (moment - now).total_seconds())

    @property
    def summary(self) -> str:
        """One line for reasons and messages: what was asked, the status, the body's beginning. Known secrets are blanked."""
        body = " ".join(excerpt(self.text, EXCERPT * 8).split())
        if len(body) > EXCERPT:
            body = body[: EXCERPT - 1] + "…"
        line = f"{self.request} answered {self.status}"
        if self.reason:
            line += f" {self.reason}"
        return redact(f"{line}: {body}" if body else line)

    def __repr__(self) -> str:
        return f"<HttpResponse {self.status}, {len(self.content)} bytes>"


def _http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def classify_status(status: int, reason: str, retry_after: float | None = None) -> Verdict:
    """What an answer's status means for the record that was sent.

    2xx is `Ok`. 408, 421, 423, 425, 429 and 5xx are `Retry`. What may be our fault and not the record's (redirects that were
    not followed, 402 to 405, 407, 410, 451) is `Dead` with `access`; everything else is `Dead`. A 401 raises `FatalError`: the
    credentials are refused, and no record is to blame.
    """
    if 200 <= status < 300:
        return Ok()
    if status == 401:
        raise FatalError(reason, hint="check the connection's credentials", code="http.unauthorized")
    if status in _RETRIED or status >= 500:
        return Retry(reason, after=retry_after, code=f"http.{status}")
    if status in _MAYBE_OURS:
        return Dead(reason, code=f"http.{status}", access=True)
    return Dead(reason, code=f"http.{status}")
