"""What Salesforce's answers mean for records: the table of status codes, for one record and for a whole request.

Codes: https://developer.salesforce.com/docs/atlas.en-us.api.meta/api/sforce_api_calls_concepts_core_data_objects.htm
(StatusCode) and https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/errorcodes.htm (HTTP).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from trunkline.core.errors import FatalError, code_from
from trunkline.core.redaction import excerpt
from trunkline.core.verdicts import Dead, Ok, Retry, Verdict

Kind = Literal["transient", "limit", "fatal", "access", "data"]

TABLE: Mapping[str, Kind] = {
    # Passes by itself: another transaction, a busy server, an answer that took too long.
    "UNABLE_TO_LOCK_ROW": "transient",
    "SERVER_UNAVAILABLE": "transient",
    "QUERY_TIMEOUT": "transient",
    "REQUEST_RUNNING_TOO_LONG": "transient",
    "FUNCTIONALITY_TEMPORARILY_UNAVAILABLE": "transient",
    "ALL_OR_NONE_OPERATION_ROLLED_BACK": "transient",
    "UNKNOWN_EXCEPTION": "transient",
    "INTERNAL_ERROR": "transient",
    "TXN_SECURITY_METERING_ERROR": "transient",
    "TXN_SECURITY_RUNTIME_EXCEPTION": "transient",
    # Passes when the day, or an administrator, makes room: the records wait, they are not to blame.
    "REQUEST_LIMIT_EXCEEDED": "limit",
    "EXCEEDED_QUOTA": "limit",
    "STORAGE_LIMIT_EXCEEDED": "limit",
    # The account or the app is refused: no record can be delivered.
    "INVALID_SESSION_ID": "fatal",
    "INVALID_LOGIN": "fatal",
    "INVALID_AUTH_HEADER": "fatal",
    "API_DISABLED_FOR_ORG": "fatal",
    "API_CURRENTLY_DISABLED": "fatal",
    "CLIENT_NOT_ACCESSIBLE_FOR_USER": "fatal",
    "LOGIN_MUST_USE_SECURITY_TOKEN": "fatal",
    "ORG_LOCKED": "fatal",
    "PASSWORD_LOCKOUT": "fatal",
    "UNSUPPORTED_API_VERSION": "fatal",
    "LICENSE_LIMIT_EXCEEDED": "fatal",
    # A refusal that may be ours and not the record's.
    "INSUFFICIENT_ACCESS": "access",
    "INSUFFICIENT_ACCESS_OR_READONLY": "access",
    "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY": "access",
    "INVALID_FIELD_FOR_INSERT_UPDATE": "access",
    "TXN_SECURITY_NO_ACCESS": "access",
    "NO_ACCESS": "access",
    # The record itself. Every code that is not listed is of this kind too; these are named for the reader.
    "ENTITY_IS_DELETED": "data",
    "REQUIRED_FIELD_MISSING": "data",
    "STRING_TOO_LONG": "data",
    "INVALID_FIELD": "data",
    "INVALID_TYPE_ON_FIELD_IN_RECORD": "data",
    "INVALID_OR_NULL_FOR_RESTRICTED_PICKLIST": "data",
    "INVALID_EMAIL_ADDRESS": "data",
    "INVALID_CROSS_REFERENCE_KEY": "data",
    "MALFORMED_ID": "data",
    "MISSING_ARGUMENT": "data",
    "NUMBER_OUTSIDE_VALID_RANGE": "data",
    "FIELD_INTEGRITY_EXCEPTION": "data",
    "CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY": "data",
    "FIELD_CUSTOM_VALIDATION_EXCEPTION": "data",
    "DUPLICATES_DETECTED": "data",
    "DUPLICATE_VALUE": "data",
    "DUPLICATE_EXTERNAL_ID": "data",
}

DAILY = "daily API requests"
LIMITS: Mapping[str, str] = {
    "REQUEST_LIMIT_EXCEEDED": DAILY,
    "EXCEEDED_QUOTA": "quota",
    "STORAGE_LIMIT_EXCEEDED": "data storage",
}
"""What is used up where Salesforce says so (Salesforce Developer Limits and Allocations Quick Reference)."""

FATAL_REQUESTS = frozenset({"INVALID_TYPE", "NOT_FOUND", "METHOD_NOT_ALLOWED"})
"""Codes of a refused request that say it can't be right for any record: no such object, or no such address."""

_WRAPPED = ("UNABLE_TO_LOCK_ROW",)
"""A lock that a trigger or flow ran into comes inside the message of another code (CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY)."""

_RANK: Mapping[Kind, int] = {"fatal": 4, "data": 3, "access": 2, "limit": 1, "transient": 0}


@dataclass(frozen=True, slots=True)
class Refused:
    """The account, or what every record needs, is refused: the pipeline has to stop, once the others' verdicts are told.

    `error` is the error to stop with, where there is one already.
    """

    reason: str
    error: FatalError | None = None


@dataclass(frozen=True, slots=True)
class Scattered:
    """The whole request was refused for what some of its records hold: they are to be sent in smaller parts."""

    reason: str
    code: str


@dataclass(frozen=True, slots=True)
class Failure:
    """One error: Salesforce's code, its message, and the fields it names."""

    code: str
    message: str
    fields: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """The class of the table; a code that it doesn't have is the record's fault."""
        if any(code in self.message for code in _WRAPPED):
            return "transient"
        if self.code == "INVALID_FIELD" and self.message.lstrip().startswith("No such column"):
            return "fatal"  # a field of the mapping is gone, or hidden from the user: so it is for every record
        return TABLE.get(self.code, "data")

    def __str__(self) -> str:
        named = f" [{', '.join(self.fields)}]" if self.fields else ""
        return f"{self.code}: {self.message}{named}"


def row_outcome(row: Any, *, limit_pause: float) -> Verdict | Refused | None:
    """What one entry of a collection's answer means, or None when it is no such entry.

    Of several errors the one decides that a retry mends least.
    """
    if not isinstance(row, Mapping) or not isinstance(row.get("success"), bool):
        return None
    if row["success"]:
        return Ok(str(row["id"]) if row.get("id") else None)
    failures = list(_failures(row.get("errors")))
    if not failures:
        return None
    worst = max(failures, key=lambda failure: _RANK[failure.kind])
    reason = excerpt("; ".join(str(failure) for failure in failures), 1000)
    return outcome(worst, reason, limit_pause=limit_pause)


def outcome(failure: Failure, reason: str, *, limit_pause: float, after: float | None = None) -> Verdict | Refused:
    """What one error means for a record; `reason` is the text that goes with it."""
    match failure.kind:
        case "transient":
            return Retry(reason, after, _code(failure))
        case "limit":
            limit = LIMITS.get(failure.code, failure.code)
            return Retry(reason, after if after is not None else limit_pause, _code(failure), limit)
        case "fatal":
            return Refused(reason)
        case "access":
            return Dead(reason, code=_code(failure), access=True)
    return Dead(reason, code=_code(failure))


def _code(failure: Failure) -> str:
    return f"salesforce.{code_from(failure.code, 'refused')}"


def request_outcome(
    status: int, errors: Iterable[tuple[str, str]], *, limit_pause: float, after: float | None
) -> Verdict | Refused | Scattered:
    """What a refused request (any status but 2xx) means for each of its records.

    A 5xx other than 503 comes out as `Retry` too, although Salesforce may have done the work before it failed: a sink that is
    not idempotent asks `may_have_worked` first.
    """
    failures = [Failure(code, message) for code, message in errors]
    first = failures[0] if failures else Failure("", "")
    reason = excerpt("; ".join(str(failure) for failure in failures) or "no reason given", 1000)
    text = f"status {status}, {reason}"
    if first.code in TABLE and first.kind in {"limit", "fatal", "transient"}:
        return outcome(first, text, limit_pause=limit_pause, after=after)
    if status in {408, 425, 429} or status >= 500:
        return Retry(text, after, f"http.{status}")
    if status in {401, 403, 404, 405, 410, 415} or status < 400 or first.code in FATAL_REQUESTS:
        # The object, the address or the permission is wrong, and so for every record.
        return Refused(text)
    return Scattered(text, first.code or f"http_{status}")


def may_have_worked(status: int) -> bool:
    """Whether a request with this answer may have had an effect: an error, or a gateway's time-out, after the work began."""
    return status >= 500 and status != 503


def _failures(errors: Any) -> Iterable[Failure]:
    for error in errors if isinstance(errors, list) else ():
        if isinstance(error, Mapping):
            named = error.get("fields")
            fields = tuple(str(name) for name in named) if isinstance(named, list) else ()
            yield Failure(str(error.get("statusCode") or "UNKNOWN"), str(error.get("message") or ""), fields)
