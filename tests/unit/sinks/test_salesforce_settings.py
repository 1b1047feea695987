"""What the manifests of the Salesforce sink may say."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from sinks.salesforce.settings import SalesforceConnection, SalesforceSettings

AUTH = {"type": "client_credentials", "client_id": "app", "client_secret": "${env:SF_CLIENT_SECRET}"}
UPSERT = {"object": "Flight__c", "external_id": "Key__c", "fields": {"Key__c": "event.key"}}


def connection(**more: Any) -> SalesforceConnection:
    return SalesforceConnection.model_validate({"url": "https://example.my.salesforce.com", "auth": AUTH, **more})


@pytest.mark.parametrize(
    "url", ["http://example.my.salesforce.com", "ftp://x", "https://", "example", "http://10.0.0.1"]
)
def test_credentials_do_not_travel_in_the_clear(url: str) -> None:
    with pytest.raises(ValidationError, match="https"):
        connection(url=url)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/", "http://localhost:1", "http://[::1]:1"])
def test_a_stand_in_on_loopback_needs_no_tls(url: str) -> None:
    assert connection(url=url).url == url.rstrip("/")


@pytest.mark.parametrize(("given", "kept"), [("62.0", "62.0"), ("v64.0", "64.0"), (63.0, "63.0"), (65, "65.0")])
def test_the_version_is_taken_however_yaml_reads_it(given: Any, kept: str) -> None:
    assert connection(api_version=given).api_version == kept


@pytest.mark.parametrize("version", ["61.0", "latest", "62.1"])
def test_a_version_that_is_too_old_or_none_is_refused(version: str) -> None:
    with pytest.raises(ValidationError):
        connection(api_version=version)


def test_a_secret_in_the_manifest_itself_is_refused() -> None:
    with pytest.raises(ValidationError, match="reference"):
        connection(auth={**AUTH, "client_secret": "hunter2"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"external_id": None}, "needs the external id"),
        ({"fields": {"Name": "event.name"}}, "must get a value"),
        ({"fields": {}}, "at least 1"),
        ({"fields": {"Key__c": "event.key", "Id": "event.id"}}, "Id is given by Salesforce"),
        ({"fields": {"Key__c": "event.key", "A.B.C": "event.id"}}, "is no field"),
        ({"fields": {"Key__c": "event.key", "A/../B": "event.id"}}, "is no field"),
        ({"object": "../query"}, "pattern"),
        ({"correlation_field": "Key__c"}, "gets a value"),
        ({"max_batch": 201}, "200"),
        ({"limit_reserve": 95}, "less than or equal to 1"),
        ({"feilds": {}}, "feilds"),
    ],
)
def test_a_mapping_that_cant_work_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SalesforceSettings.model_validate({**UPSERT, **change})


def test_an_insert_needs_no_external_id() -> None:
    settings = SalesforceSettings.model_validate(
        {"object": "Lead", "operation": "insert", "fields": {"LastName": "event.name"}}
    )
    assert settings.external_id is None
