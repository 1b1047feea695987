"""The conformance of the `salesforce` sink, upserting by an external id: through collections, and through bulk jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sinks.salesforce.mock import SalesforceMock
from sinks.salesforce.sink import SalesforceSink
from trunkline.core.testing import NotApplicableError, SinkKit, sink_suite


class SalesforceKit(SinkKit):
    """Salesforce's stand-in, which is checked against simple-salesforce elsewhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.mock = SalesforceMock()

    @property
    def environment(self) -> Mapping[str, str]:
        return self.mock.environment

    @property
    def secrets(self) -> Sequence[str]:
        return (self.mock.environment["SF_CLIENT_SECRET"],)

    @property
    def config(self) -> Any:
        return {
            "object": "Flight__c",
            "external_id": "Flight_Key__c",
            "fields": {"Flight_Key__c": "string(event.number)", "Carrier__c": "event.carrier"},
        }

    @property
    def connection(self) -> dict[str, Any]:
        return {
            "url": self.mock.url,
            "auth": {
                "type": "client_credentials",
                "client_id": "${env:SF_CLIENT_ID}",
                "client_secret": "${env:SF_CLIENT_SECRET}",
            },
            "http": {"allow_private": ["127.0.0.1"]},
        }

    async def start(self) -> None:
        await self.mock.start()

    async def stop(self) -> None:
        await self.mock.stop()

    def value(self, number: int) -> Any:
        return {"number": number, "carrier": "UA"}

    def bad_value(self) -> Any:
        return {"number": 99, "carrier": "much too long a carrier"}

    async def arrived(self) -> Sequence[int]:
        return [int(record["Flight_Key__c"]) for record in self.mock.org.records("Flight__c")]

    async def break_down(self) -> None:
        self.mock.fail(1, "unavailable")

    async def throttle(self) -> float:
        self.mock.fail(1, "throttled")
        return 2

    async def refuse(self) -> None:
        self.mock.tokens.client_secret = "changed-by-an-administrator"  # noqa: S105 (of a test)
        self.mock.expire_sessions()

    async def hang(self) -> None:
        raise NotApplicableError(
            "the stand-in always answers; the `http` sink's suite hangs the client that both share"
        )


TestSalesforceSink = sink_suite(SalesforceSink, factory=SalesforceKit)


class BulkKit(SalesforceKit):
    """The same org, given its records as jobs."""

    @property
    def config(self) -> Any:
        return {**super().config, "api": "bulk", "job_poll": "50ms"}

    async def hang(self) -> None:
        self.mock.ingest.held = True


TestSalesforceBulk = sink_suite(SalesforceSink, factory=BulkKit)
