"""What Salesforce's codes mean for a record, and how a batch is cut and judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sinks.salesforce.delivery import Answered, Row, deliver, requests_of
from sinks.salesforce.outcomes import Refused, Scattered, request_outcome, row_outcome
from trunkline.core.errors import FatalError
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown


def refused_row(*codes: str, message: str = "m") -> dict[str, Any]:
    return {"success": False, "errors": [{"statusCode": code, "message": message, "fields": ["F"]} for code in codes]}


def of_row(row: Any) -> Any:
    return row_outcome(row, limit_pause=60.0)


def test_a_successful_row_is_ok_with_its_record_id() -> None:
    assert of_row({"id": "001", "success": True, "errors": [], "created": False}) == Ok("001")


@pytest.mark.parametrize(
    "code", ["UNABLE_TO_LOCK_ROW", "SERVER_UNAVAILABLE", "QUERY_TIMEOUT", "TXN_SECURITY_RUNTIME_EXCEPTION"]
)
def test_what_passes_by_itself_is_retried(code: str) -> None:
    assert of_row(refused_row(code)) == Retry(f"{code}: m [F]")


@pytest.mark.parametrize("code", ["REQUEST_LIMIT_EXCEEDED", "STORAGE_LIMIT_EXCEEDED"])
def test_a_limit_is_retried_after_the_pause(code: str) -> None:
    assert of_row(refused_row(code)) == Retry(f"{code}: m [F]", after=60.0)


@pytest.mark.parametrize("code", ["INVALID_SESSION_ID", "API_DISABLED_FOR_ORG", "INVALID_LOGIN"])
def test_a_refused_account_is_nobodys_dead_letter(code: str) -> None:
    assert isinstance(of_row(refused_row(code)), Refused)


@pytest.mark.parametrize(
    "code",
    [
        "INSUFFICIENT_ACCESS_OR_READONLY",
        "INSUFFICIENT_ACCESS_ON_CROSS_REFERENCE_ENTITY",
        "INVALID_FIELD_FOR_INSERT_UPDATE",
    ],
)
def test_a_missing_permission_is_dead_and_marked_as_access(code: str) -> None:
    outcome = of_row(refused_row(code))
    assert isinstance(outcome, Dead)
    assert outcome.access


@pytest.mark.parametrize(
    "code",
    [
        "REQUIRED_FIELD_MISSING",
        "STRING_TOO_LONG",
        "MALFORMED_ID",
        "FIELD_CUSTOM_VALIDATION_EXCEPTION",
        "DUPLICATES_DETECTED",
        "ENTITY_IS_DELETED",
        "A_CODE_OF_NEXT_YEAR",
    ],
)
def test_a_bad_record_is_dead_with_code_message_and_field(code: str) -> None:
    assert of_row(refused_row(code)) == Dead(f"{code}: m [F]", code=f"salesforce.{code.lower()}")


def test_a_column_that_is_gone_is_no_records_fault() -> None:
    assert isinstance(
        of_row(refused_row("INVALID_FIELD", message="No such column 'X__c' on entity 'Account'")), Refused
    )


def test_of_several_errors_the_one_decides_that_a_retry_does_not_mend() -> None:
    outcome = of_row(refused_row("UNABLE_TO_LOCK_ROW", "STRING_TOO_LONG"))
    assert isinstance(outcome, Dead)
    assert outcome.code == "salesforce.string_too_long"
    assert "UNABLE_TO_LOCK_ROW" in outcome.reason


def test_a_lock_that_a_trigger_ran_into_is_retried() -> None:
    message = "execution of BeforeUpdate caused by: UNABLE_TO_LOCK_ROW, unable to obtain exclusive access"
    assert isinstance(of_row(refused_row("CANNOT_INSERT_UPDATE_ACTIVATE_ENTITY", message=message)), Retry)


@pytest.mark.parametrize("row", [None, 1, [], {}, {"success": "true"}, {"success": False}, refused_row(), {"id": "1"}])
def test_a_row_that_says_nothing_has_no_outcome(row: Any) -> None:
    assert of_row(row) is None


@pytest.mark.parametrize(
    ("status", "code", "message", "expected"),
    [
        (503, "SERVER_UNAVAILABLE", "busy", Retry),
        (503, "", "", Retry),
        (429, "", "", Retry),
        (500, "UNKNOWN_EXCEPTION", "", Retry),
        (502, "", "", Retry),
        (403, "REQUEST_LIMIT_EXCEEDED", "", Retry),
        (403, "API_DISABLED_FOR_ORG", "", Refused),
        (403, "INSUFFICIENT_ACCESS", "", Refused),
        (404, "NOT_FOUND", "", Refused),
        (301, "", "", Refused),
        (400, "INVALID_FIELD", "No such column 'X__c' on sobject of type Account", Refused),
        (400, "INVALID_TYPE", "sObject type 'X' is not supported.", Refused),
        (400, "JSON_PARSER_ERROR", "Cannot deserialize", Scattered),
        (400, "INVALID_FIELD", "something else", Scattered),
        (413, "", "", Scattered),
    ],
)
def test_a_refused_request_is_told_apart(status: int, code: str, message: str, expected: type) -> None:
    errors = [(code, message)] if code else []
    assert isinstance(request_outcome(status, errors, limit_pause=60.0, after=None), expected)


def test_the_servers_own_wait_goes_before_the_pause() -> None:
    found = request_outcome(403, [("REQUEST_LIMIT_EXCEEDED", "")], limit_pause=60.0, after=7.0)
    assert isinstance(found, Retry)
    assert found.after == 7.0


# --- cutting and judging a batch ---


def rows_of(*identities: object) -> list[Row]:
    return [Row(place, b"{}", identity) for place, identity in enumerate(identities)]


@given(st.lists(st.integers(0, 8), max_size=60), st.integers(1, 10))
def test_requests_keep_order_and_size_and_never_hold_an_external_id_twice(identities: list[int], most: int) -> None:
    requests = requests_of(rows_of(*identities), most)
    assert all(len(request) <= most for request in requests)
    assert all(len({row.identity for row in request}) == len(request) for request in requests)
    sent = [row for request in requests for row in request]
    assert sorted(row.place for row in sent) == list(range(len(identities)))
    for identity in set(identities):
        places = [row.place for row in sent if row.identity == identity]
        assert places == sorted(places)


def test_inserts_have_no_external_id_and_go_together() -> None:
    assert len(requests_of(rows_of(None, None, None), 200)) == 1


class Server:
    """Answers each request by a function, and keeps what was sent."""

    def __init__(self, *answers: Any) -> None:
        self._answers = list(answers)
        self.sent: list[list[int]] = []

    async def __call__(self, rows: Sequence[Row]) -> Answered:
        self.sent.append([row.place for row in rows])
        answer = self._answers.pop(0) if self._answers else Answered([Ok() for _ in rows])
        return answer(rows) if callable(answer) else answer


@given(st.sets(st.integers(0, 39)), st.integers(1, 40))
async def test_a_refused_request_is_halved_until_only_the_bad_records_die(bad: set[int], most: int) -> None:
    async def send(rows: Sequence[Row]) -> Answered:
        if any(row.place in bad for row in rows):
            return Answered(Scattered("unreadable", "JSON_PARSER_ERROR"))
        return Answered([Ok(str(row.place)) for row in rows])

    verdicts = await deliver(rows_of(*range(40)), send, most=most)
    assert {place for place, verdict in verdicts.items() if isinstance(verdict, Dead)} == bad
    assert all(verdicts[place] == Ok(str(place)) for place in set(range(40)) - bad)


async def test_a_later_record_does_not_overtake_an_unsettled_one_with_its_external_id() -> None:
    server = Server(Answered([Retry("locked"), Ok()]))
    verdicts = await deliver(rows_of("a", "b", "a", "b"), server, most=200)
    assert server.sent == [[0, 1], [3]]
    assert isinstance(verdicts[2], Retry)
    assert verdicts[3] == Ok()


async def test_a_dead_record_does_not_hold_back_a_later_one_with_its_external_id() -> None:
    server = Server(Answered([Dead("bad")]))
    assert await deliver(rows_of("a", "a"), server, most=200) == {0: Dead("bad"), 1: Ok()}


async def test_a_busy_server_is_not_asked_again_for_the_rest_of_the_batch() -> None:
    server = Server(lambda rows: Answered([Retry("busy", after=3.0)] * len(rows), stop=True))
    verdicts = await deliver(rows_of(*range(5)), server, most=2)
    assert server.sent == [[0, 1]]
    assert set(verdicts.values()) == {Retry("busy", after=3.0)}


async def test_what_was_not_sent_after_a_lost_answer_is_retried_and_not_unknown() -> None:
    server = Server(lambda rows: Answered([Unknown("cut")] * len(rows), stop=True))
    verdicts = await deliver(rows_of(*range(4)), server, most=2)
    assert [type(verdicts[place]) for place in range(4)] == [Unknown, Unknown, Retry, Retry]


async def test_a_refused_account_stops_at_once_when_nothing_took_effect() -> None:
    with pytest.raises(FatalError, match="API_DISABLED"):
        await deliver(
            rows_of(1, 2), Server(lambda rows: Answered([Refused("API_DISABLED")] * len(rows), stop=True)), most=200
        )


async def test_a_refused_account_does_not_forget_what_took_effect_before() -> None:
    server = Server(Answered([Ok("x")]), lambda rows: Answered([Refused("gone")] * len(rows), stop=True))
    assert await deliver(rows_of(1, 2, 3), server, most=1) == {0: Ok("x"), 1: Retry("gone"), 2: Retry("gone")}
