"""The stand-in org satisfies simple-salesforce, unmodified: only its https addresses are led to loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from requests.adapters import HTTPAdapter
from simple_salesforce import Salesforce
from simple_salesforce.exceptions import (
    SalesforceAuthenticationFailed,
    SalesforceError,
    SalesforceExpiredSession,
    SalesforceMalformedRequest,
    SalesforceResourceNotFound,
)

from sinks.salesforce.mock import MockSettings, SalesforceMock
from sinks.salesforce.mock.org import record_id


class ToLoopback(HTTPAdapter):
    """Sends what is meant for https://anything to the stand-in."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        request.url = self._url + request.path_url
        return super().send(request, *args, **kwargs)


@pytest.fixture
async def mock() -> AsyncIterator[SalesforceMock]:
    server = SalesforceMock()
    await server.start()
    yield server
    await server.stop()


async def signed_in(mock: SalesforceMock, act: Callable[[Salesforce], Any], **how: Any) -> Any:
    """Runs `act` with a client, on a thread: the library blocks."""
    how = how or {
        "consumer_key": mock.tokens.client_id,
        "consumer_secret": mock.tokens.client_secret,
        "domain": "example.my",
    }

    def run() -> Any:
        with requests.Session() as session:
            session.trust_env = False
            session.mount("https://", ToLoopback(mock.url))
            return act(Salesforce(session=session, version="62.0", **how))

    return await asyncio.to_thread(run)


async def test_client_credentials_of_the_app_give_a_session(mock: SalesforceMock) -> None:
    answer = await signed_in(mock, lambda sf: sf.limits())
    assert answer["DailyApiRequests"]["Max"] == 15_000


async def test_a_wrong_secret_gives_no_session(mock: SalesforceMock) -> None:
    with pytest.raises(SalesforceAuthenticationFailed, match="invalid client credentials"):
        await signed_in(mock, lambda sf: sf, consumer_key="trunkline", consumer_secret="wrong", domain="example.my")


async def test_user_and_password_give_a_session(mock: SalesforceMock) -> None:
    how = {
        "username": mock.tokens.username,
        "password": mock.tokens.password,
        "consumer_key": mock.tokens.client_id,
        "consumer_secret": mock.tokens.client_secret,
    }
    assert await signed_in(mock, lambda sf: sf.query("SELECT COUNT() FROM Account")["totalSize"], **how) == 0


async def test_an_assertion_is_checked_with_the_apps_public_key() -> None:
    keys = [rsa.generate_private_key(65537, 2048) for _ in range(2)]
    public = (
        keys[0].public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    right, wrong = (
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        for key in keys
    )
    mock = SalesforceMock(MockSettings(public_key=public.decode()))
    await mock.start()
    try:
        how = {"username": "bus@example.com", "consumer_key": "trunkline"}
        found = await signed_in(mock, lambda sf: sf.query("SELECT Id FROM Lead"), privatekey=right, **how)
        assert found["totalSize"] == 0
        with pytest.raises(SalesforceAuthenticationFailed, match="invalid assertion"):
            await signed_in(mock, lambda sf: sf, privatekey=wrong, **how)
    finally:
        await mock.stop()


async def test_a_record_is_created_read_changed_and_deleted(mock: SalesforceMock) -> None:
    def act(sf: Salesforce) -> None:
        rid = sf.Account.create({"Name": "Acme", "NumberOfEmployees": 7})["id"]
        assert len(rid) == 18
        assert rid.startswith("001")
        assert sf.Account.update(rid, {"Phone": "1"}) == 204
        found = sf.Account.get(rid)
        assert (found["Name"], found["Phone"], found["attributes"]["type"]) == ("Acme", "1", "Account")
        assert sf.Account.get(rid[:15])["Id"] == rid
        assert sf.Account.delete(rid) == 204
        with pytest.raises(SalesforceResourceNotFound):
            sf.Account.get(rid)

    await signed_in(mock, act)
    assert mock.org.effects == {"created": 1, "updated": 1, "deleted": 1}


async def test_an_upsert_creates_once_and_then_changes(mock: SalesforceMock) -> None:
    def act(sf: Salesforce) -> None:
        path = "Flight_Key__c/UA 1545/2013"
        assert sf.Flight__c.upsert("Flight_Key__c/UA%201545%2F2013", {"Carrier__c": "UA"}) == 201, path
        assert sf.Flight__c.upsert("Flight_Key__c/UA%201545%2F2013", {"Carrier__c": "AA"}) == 200
        rows = sf.query_all("SELECT Flight_Key__c, Carrier__c FROM Flight__c")["records"]
        assert [(row["Flight_Key__c"], row["Carrier__c"]) for row in rows] == [("UA 1545/2013", "AA")]

    await signed_in(mock, act)


async def test_describe_tells_types_lengths_and_external_ids(mock: SalesforceMock) -> None:
    described = await signed_in(mock, lambda sf: sf.Flight__c.describe())
    fields = {field["name"]: field for field in described["fields"]}
    assert fields["Flight_Key__c"]["externalId"] is True
    assert fields["Flight_Key__c"]["length"] == 80
    assert fields["Departure_Delay__c"]["type"] == "double"
    assert fields["Operator__c"]["relationshipName"] == "Operator__r"
    names = [item["name"] for item in (await signed_in(mock, lambda sf: sf.describe()))["sobjects"]]
    assert names == ["Account", "Contact", "Lead", "Flight__c"]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("", ["a", "b", "c'd"]),
        ("WHERE Name = 'B'", ["b"]),
        (r"WHERE Name = 'c\'d'", ["c'd"]),
        ("WHERE Name IN ('a', 'c\\'d') AND NumberOfEmployees >= 3", ["c'd"]),
        ("WHERE Name LIKE 'c%'", ["c'd"]),
        ("WHERE Phone = null ORDER BY NumberOfEmployees DESC LIMIT 2", ["c'd", "b"]),
        ("WHERE Name NOT IN ('a') ORDER BY Name OFFSET 1", ["c'd"]),
    ],
)
async def test_a_query_filters_orders_and_limits(mock: SalesforceMock, where: str, expected: list[str]) -> None:
    for number, name in enumerate(("a", "b", "c'd"), 1):
        mock.org.create("Account", {"Name": name, "NumberOfEmployees": number})
    found = await signed_in(mock, lambda sf: sf.query(f"SELECT Id, Name FROM Account {where}"))
    assert [row["Name"] for row in found["records"]] == expected


async def test_a_long_answer_to_a_query_comes_in_pages(mock: SalesforceMock) -> None:
    for number in range(501):
        mock.org.create("Account", {"Name": f"{number:04d}"})

    def act(sf: Salesforce) -> Any:
        pages = {"Sforce-Query-Options": "batchSize=200"}
        return list(sf.query_all_iter("SELECT Name FROM Account ORDER BY Name", headers=pages))

    rows = await signed_in(mock, act)
    assert [row["Name"] for row in rows] == [f"{number:04d}" for number in range(501)]


async def test_a_query_that_cant_be_read_is_refused(mock: SalesforceMock) -> None:
    with pytest.raises(SalesforceMalformedRequest, match="MALFORMED_QUERY"):
        await signed_in(mock, lambda sf: sf.query("SELECT Id FROM Account WHERE"))


async def test_a_collection_answers_for_each_record(mock: SalesforceMock) -> None:
    records = [
        {"attributes": {"type": "Account"}, "ExtId__c": "1", "Name": "One"},
        {"attributes": {"type": "Account"}, "ExtId__c": "2"},
        {"attributes": {"type": "Account"}, "ExtId__c": "3", "Name": "x" * 256},
    ]
    body = {"allOrNone": False, "records": records}
    path = "composite/sobjects/Account/ExtId__c"
    found = await signed_in(mock, lambda sf: sf.restful(path, method="PATCH", json=body))
    assert found[0]["success"] is True
    assert found[0]["created"] is True
    assert [row["errors"][0]["statusCode"] for row in found[1:]] == ["REQUIRED_FIELD_MISSING", "STRING_TOO_LONG"]
    assert mock.org.attempts == 3
    assert mock.org.effects["created"] == 1


async def test_all_or_none_undoes_the_good_records(mock: SalesforceMock) -> None:
    records = [{"attributes": {"type": "Account"}, "Name": "One"}, {"attributes": {"type": "Account"}}]
    body = {"allOrNone": True, "records": records}
    found = await signed_in(mock, lambda sf: sf.restful("composite/sobjects", method="POST", json=body))
    codes = [row["errors"][0]["statusCode"] for row in found]
    assert codes == ["ALL_OR_NONE_OPERATION_ROLLED_BACK", "REQUIRED_FIELD_MISSING"]
    assert mock.contents() == {}


async def test_a_collection_with_the_same_external_id_twice_refuses_both(mock: SalesforceMock) -> None:
    records = [{"attributes": {"type": "Account"}, "ExtId__c": key, "Name": "n"} for key in ("k", "K", "other")]
    path = "composite/sobjects/Account/ExtId__c"
    found = await signed_in(mock, lambda sf: sf.restful(path, method="PATCH", json={"records": records}))
    assert [row["success"] for row in found] == [False, False, True]
    assert found[0]["errors"][0]["statusCode"] == "DUPLICATE_VALUE"


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"Nope__c": 1}, "INVALID_FIELD"),
        ({"NumberOfEmployees": "many"}, "JSON_PARSER_ERROR"),
    ],
)
async def test_one_unreadable_record_refuses_the_whole_collection(
    mock: SalesforceMock, record: dict[str, Any], code: str
) -> None:
    good = {"attributes": {"type": "Account"}, "Name": "n"}
    body = {"records": [good, {**good, **record}]}
    with pytest.raises(SalesforceMalformedRequest, match=code):
        await signed_in(mock, lambda sf: sf.restful("composite/sobjects", method="POST", json=body))
    assert mock.contents() == {}


async def test_a_collection_holds_at_most_200_records(mock: SalesforceMock) -> None:
    body = {"records": [{"attributes": {"type": "Account"}, "Name": "n"}] * 201}
    with pytest.raises(SalesforceMalformedRequest, match="EXCEEDED_ID_LIMIT"):
        await signed_in(mock, lambda sf: sf.restful("composite/sobjects", method="POST", json=body))


async def test_a_lookup_is_set_by_the_parents_external_id(mock: SalesforceMock) -> None:
    account = mock.org.create("Account", {"Name": "United", "ExtId__c": "UA"})

    def act(sf: Salesforce) -> list[Any]:
        sf.Flight__c.create({"Flight_Key__c": "1", "Operator__r": {"ExtId__c": "UA"}})
        with pytest.raises(SalesforceMalformedRequest, match="Foreign key external ID: ZZ not found"):
            sf.Flight__c.create({"Flight_Key__c": "2", "Operator__r": {"ExtId__c": "ZZ"}})
        return list(sf.query("SELECT Operator__c FROM Flight__c")["records"])

    assert [row["Operator__c"] for row in await signed_in(mock, act)] == [account]


async def test_an_expired_session_is_refused_and_a_new_one_works(mock: SalesforceMock) -> None:
    def act(sf: Salesforce) -> Any:
        mock.expire_sessions()
        return sf.query("SELECT Id FROM Account")["done"]

    assert await signed_in(mock, act) is True
    direct = {"session_id": "00Dnope", "instance_url": "https://example.my.salesforce.com"}
    with pytest.raises(SalesforceExpiredSession, match="INVALID_SESSION_ID"):
        await signed_in(mock, lambda sf: sf.query("SELECT Id FROM Account"), **direct)


async def test_each_answer_tells_the_usage_of_the_daily_limit(mock: SalesforceMock) -> None:
    def act(sf: Salesforce) -> Any:
        sf.query("SELECT Id FROM Account")
        sf.query("SELECT Id FROM Account")
        return sf.api_usage["api-usage"]

    assert await signed_in(mock, act) == (2, 15_000)


@pytest.mark.parametrize("kind", ["unavailable", "throttled", "limit", "error"])
async def test_a_failure_on_demand_has_no_effect_and_passes(mock: SalesforceMock, kind: str) -> None:
    mock.fail(1, kind)

    def act(sf: Salesforce) -> None:
        with pytest.raises(SalesforceError):
            sf.Account.create({"Name": "Acme"})
        sf.Account.create({"Name": "Acme"})

    await signed_in(mock, act)
    assert mock.org.effects["created"] == 1


def test_an_unknown_failure_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="unavailable, throttled"):
        SalesforceMock().fail(1, "nope")


def test_records_survive_a_restart_where_a_state_file_is_set(tmp_path: Path) -> None:
    settings = MockSettings(state=str(tmp_path / "org.jsonl"))
    first = SalesforceMock(settings)
    kept = first.org.create("Account", {"Name": "Kept", "ExtId__c": "k"})
    gone = first.org.create("Account", {"Name": "Gone"})
    first.org.delete(gone)
    with (tmp_path / "org.jsonl").open("ab") as journal:
        journal.write(b'{"object": "Account", "id"')  # cut by a kill
    second = SalesforceMock(settings)
    assert [record["Id"] for record in second.contents()["Account"]] == [kept]
    assert second.org.upsert("Account", "ExtId__c", {"ExtId__c": "K", "Name": "Same"}) == (kept, False)
    new = second.org.create("Account", {"Name": "New"})
    assert new not in {kept, gone}
    assert {record["Id"] for record in SalesforceMock(settings).contents()["Account"]} == {kept, new}


def test_the_last_three_characters_of_an_id_encode_its_capitals() -> None:
    assert record_id("001", 1) == "001000000000001AAA"
    assert record_id("a0B", 0)[15:] == "EAA"
