"""The stand-in's bulk jobs satisfy simple-salesforce's Bulk 2.0 handler, unmodified."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import Any

import pytest
from simple_salesforce import Salesforce
from simple_salesforce.bulk2 import JobState, Operation
from simple_salesforce.exceptions import SalesforceError, SalesforceOperationError
from test_salesforce_mock import signed_in

from sinks.salesforce.mock import SalesforceMock


@pytest.fixture
async def mock() -> AsyncIterator[SalesforceMock]:
    server = SalesforceMock()
    await server.start()
    yield server
    await server.stop()


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


async def test_it_upserts_and_reads_back_what_became_of_each_row(mock: SalesforceMock) -> None:
    records = [{"Flight_Key__c": f"F{n}", "Carrier__c": "UA", "Name": f'a "b",\nc{n}'} for n in range(500)]
    records[7]["Carrier__c"] = "much too long a carrier"

    def act(sf: Salesforce) -> Any:
        handler = sf.bulk2.Flight__c
        [told] = handler.upsert(records=records, external_id_field="Flight_Key__c", wait=0.1)
        job = told["job_id"]
        return (
            told,
            rows(handler.get_successful_records(job)),
            rows(handler.get_failed_records(job)),
            rows(handler.get_unprocessed_records(job)),
        )

    told, successful, failed, unprocessed = await signed_in(mock, act)
    assert (told["numberRecordsProcessed"], told["numberRecordsFailed"]) == (500, 1)
    assert {row["Flight_Key__c"] for row in successful} == {f"F{n}" for n in range(500) if n != 7}
    assert {row["sf__Id"] for row in successful} == {record["Id"] for record in mock.org.records("Flight__c")}
    assert {row["Name"] for row in successful} == {record["Name"] for record in mock.org.records("Flight__c")}
    assert {row["sf__Created"] for row in successful} == {"true"}
    [refused] = failed
    assert refused["sf__Error"].startswith("STRING_TOO_LONG:Carrier__c: data value too large")
    assert refused["sf__Error"].endswith(":Carrier__c --")
    assert unprocessed == []


async def test_it_inserts(mock: SalesforceMock) -> None:
    def act(sf: Salesforce) -> Any:
        return sf.bulk2.Account.insert(records=[{"Name": "A", "AnnualRevenue": "12.5"}, {"Name": "B"}], wait=0.1)

    [told] = await signed_in(mock, act)
    assert told["numberRecordsFailed"] == 0
    assert {(row["Name"], row.get("AnnualRevenue")) for row in mock.org.records("Account")} == {
        ("A", 12.5),
        ("B", None),
    }


async def test_a_job_goes_through_its_states_and_can_be_aborted_and_deleted(mock: SalesforceMock) -> None:
    def act(sf: Salesforce) -> Any:
        client = sf.bulk2.Account._client
        job = client.create_job(Operation.insert)["id"]
        states = [client.get_job(job, False)["state"]]
        states.append(client.abort_job(job, False)["state"])
        return states

    assert await signed_in(mock, act) == [JobState.open, JobState.aborted]
    assert [job.state for job in mock.ingest.jobs.values()] == ["Aborted"]


async def test_a_table_with_an_unknown_column_fails_the_job(mock: SalesforceMock) -> None:
    def act(sf: Salesforce) -> Any:
        return sf.bulk2.Account.insert(records=[{"Nmae": "A"}], wait=0.1)

    with pytest.raises(SalesforceOperationError, match="Field name not found : Nmae"):
        await signed_in(mock, act)


async def test_an_unknown_object_or_external_id_makes_no_job(mock: SalesforceMock) -> None:
    for name, key in (("Nothing__c", "Key__c"), ("Account", "Name")):

        def act(sf: Salesforce, name: str = name, key: str = key) -> Any:
            return getattr(sf.bulk2, name).upsert(records=[{key: "A"}], external_id_field=key)

        with pytest.raises(SalesforceError):
            await signed_in(mock, act)
    assert mock.ingest.jobs == {}
