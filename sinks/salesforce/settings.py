"""Settings of the Salesforce sink and of its connection."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, field_validator, model_validator

from trunkline.core.http import HttpOptions
from trunkline.core.settings import Duration, Secret, Settings, setting

NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
_FIELD = re.compile(r"^[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)?$")

MAX_COLLECTION = 200
"""The most records of one sObject Collections request (REST API guide, "Upsert Records Using sObject Collections")."""


class ClientCredentials(Settings):
    """The OAuth2 client credentials flow: the app acts as the user that its "Run As" setting names."""

    type: Literal["client_credentials"] = setting(description="The flow.")
    client_id: str = setting(description="The app's consumer key.", min_length=1, references=True)
    client_secret: Secret = setting(description="The app's consumer secret.", examples=["${env:SF_CLIENT_SECRET}"])


class JwtBearer(Settings):
    """The OAuth2 JWT bearer flow: an assertion signed with the private key of the app's certificate (RS256)."""

    type: Literal["jwt_bearer"] = setting(description="The flow.")
    client_id: str = setting(description="The app's consumer key.", min_length=1, references=True)
    username: str = setting(
        description="The user that the app acts as.", examples=["bus@example.com"], min_length=1, references=True
    )
    private_key: Secret = setting(
        description="The RSA private key in PEM form.", examples=["${file:/run/secrets/salesforce.pem}"]
    )
    audience: str = setting(
        "https://login.salesforce.com",
        description="What the assertion is addressed to: `https://test.salesforce.com` for a sandbox.",
        references=True,
    )


SalesforceAuth = Annotated[ClientCredentials | JwtBearer, Field(discriminator="type")]


def _version_text(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:.1f}"
    return value.removeprefix("v") if isinstance(value, str) else value


def is_safe_address(url: str) -> bool:
    """Whether tokens may travel to `url`: over TLS, or in the clear to this machine's loopback."""
    parts = urlsplit(url)
    if parts.scheme == "https":
        return bool(parts.hostname)
    if parts.scheme != "http" or not parts.hostname:
        return False
    try:
        return ip_address(parts.hostname).is_loopback
    except ValueError:
        return parts.hostname == "localhost"


class SalesforceConnection(Settings):
    """An org and how to sign in to it."""

    url: str = setting(
        description="The org's My Domain address, where tokens are asked for.",
        examples=["https://example.my.salesforce.com"],
        references=True,
    )
    auth: SalesforceAuth = setting(
        description="The OAuth2 flow and its credentials.",
        examples=[
            {
                "type": "client_credentials",
                "client_id": "${env:SF_CLIENT_ID}",
                "client_secret": "${env:SF_CLIENT_SECRET}",
            }
        ],
    )
    api_version: Annotated[str, BeforeValidator(_version_text)] = setting(
        "62.0",
        description="The version of the REST API; 62.0 (Winter '25) or newer.",
        pattern=r"^\d{2,3}\.0$",
        examples=["62.0"],
    )
    http: HttpOptions = setting(
        default_factory=HttpOptions, description="Time-outs, certificates and allowed private addresses."
    )

    @field_validator("url")
    @classmethod
    def _check_url(cls, url: str) -> str:
        if not is_safe_address(url):
            raise ValueError("an https address is expected: credentials don't travel in the clear")
        return url.rstrip("/")

    @field_validator("api_version")
    @classmethod
    def _check_version(cls, version: str) -> str:
        if float(version) < 62:
            raise ValueError(f"API version {version} is too old: 62.0 or newer is expected")
        return version


class SalesforceSettings(Settings):
    """What becomes of an event in Salesforce."""

    object: str = setting(description="The object's API name.", pattern=NAME, examples=["Flight__c"])
    operation: Literal["upsert", "insert"] = setting(
        "upsert",
        description="`upsert` changes the record that has the external id, or creates it: an event delivered twice makes one "
        "record. `insert` always creates one.",
    )
    external_id: str | None = setting(
        None,
        description="The external id field that upserts find records by. It must be one of `fields`.",
        pattern=NAME,
        examples=["Flight_Key__c"],
    )
    fields: dict[str, str] = setting(
        description="CEL expressions by field. `Parent__r.Key__c` sets a lookup by the parent's external id.",
        examples=[{"Flight_Key__c": "event.flight_key", "Operator__r.ExtId__c": "event.carrier"}],
        min_length=1,
    )
    correlation_field: str | None = setting(
        None,
        description="A text field that gets the event's correlation id.",
        pattern=NAME,
        examples=["Correlation_Id__c"],
    )
    nulls: Literal["send", "omit"] = setting(
        "send", description="A null value empties the field (`send`), or leaves it as it is (`omit`)."
    )
    api: Literal["rest", "auto", "bulk"] = setting(
        "rest",
        description="`rest` sends requests of up to `max_batch` records. `auto` and `bulk` deliver gapless ranges of a partition: "
        "`auto` by a job of Bulk API 2.0 where a range has more than `bulk_above` records and by requests else, `bulk` always by a job.",
    )
    bulk_above: int = setting(
        2000, description="With `api: auto`, the most records of a range that go by requests.", ge=1, examples=[2000]
    )
    job_records: int = setting(
        10_000,
        description="Most records of one job. They are held in memory until the job's results are read; Salesforce itself cuts jobs "
        "into batches of 10,000.",
        ge=2,
        le=150_000,
    )
    job_poll: Duration = setting(5.0, description="The longest wait between two questions for a job's state.", gt=0)
    job_timeout: Duration = setting(
        3600.0,
        description="How long a job may take before its outcome counts as unknown; it is then asked for again.",
        gt=0,
    )
    max_batch: int = setting(MAX_COLLECTION, description="Most records of one request.", ge=1, le=MAX_COLLECTION)
    limit_reserve: float = setting(
        0.95,
        description="The used share of the org's daily API requests above which the sink holds back, so that the rest is left "
        "for others. 1 uses all of them.",
        gt=0,
        le=1,
    )
    limit_pause: Duration = setting(
        60.0, description="How long it holds back before it asks for the usage again (one request)."
    )

    @field_validator("fields")
    @classmethod
    def _check_fields(cls, fields: dict[str, str]) -> dict[str, str]:
        for name in fields:
            if not _FIELD.match(name):
                raise ValueError(f"{name!r} is no field: Name, Custom__c or Parent__r.Key__c is expected")
            if name.lower() == "id":
                raise ValueError("Id is given by Salesforce: use an external id field")
        return fields

    @model_validator(mode="after")
    def _check_external_id(self) -> SalesforceSettings:
        if self.operation == "upsert":
            if self.external_id is None:
                raise ValueError("external_id: an upsert needs the external id field that records are found by")
            if self.external_id not in self.fields:
                raise ValueError(f"fields: {self.external_id}, the external id, must get a value")
        elif self.api != "rest":
            raise ValueError(
                f"api: {self.api} needs `operation: upsert`: a job that is sent again must have no second effect"
            )
        if self.correlation_field is not None and self.correlation_field in self.fields:
            raise ValueError(f"correlation_field: {self.correlation_field} gets a value in `fields` already")
        return self
