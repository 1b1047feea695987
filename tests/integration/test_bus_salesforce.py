"""A batch of rows through the engine: one that the CRM refuses costs no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from bus_harness import bus, order, topic_manifest

from sinks.salesforce.mock import SalesforceMock

pytestmark = pytest.mark.kafka


async def test_one_bad_row_of_200_gives_199_deliveries_in_one_request_and_one_dead_letter(
    kafka: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mock = SalesforceMock()
    await mock.start()
    for name, value in mock.environment.items():
        monkeypatch.setenv(name, value)
    try:
        async with bus(kafka.bootstrap, tmp_path / "home") as made:  # type: ignore[attr-defined]
            topic = made.name("orders")
            await made.start(
                topic_manifest(topic)
                + """---
apiVersion: trunkline/v1
kind: Connection
metadata: {name: crm}
spec:
  connector: salesforce
  config:
    url: ${env:SF_URL}
    auth: {type: client_credentials, client_id: "${env:SF_CLIENT_ID}", client_secret: "${env:SF_CLIENT_SECRET}"}
    http: {allow_private: ["127.0.0.1"]}
"""
                + f"""---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: to-crm}}
spec:
  from: "{topic}"
  start: earliest
  connector: salesforce
  connection: crm
  config:
    object: Account
    external_id: ExtId__c
    fields: {{ExtId__c: string(event.id), Name: event.note}}
"""
            )
            await made.until_running("to-crm")
            rows = [order(number, f"c{number}", note="x" * (300 if number == 77 else 10)) for number in range(200)]
            await made.send_orders(topic, rows)
            await made.until(lambda: made.counts("to-crm").get("read") == 200, "200 settled")
            counts = made.counts("to-crm")
            letters = await made.dead_letters("to-crm")
    finally:
        await mock.stop()
    assert (counts["delivered"], counts["dead"]) == (199, 1)
    assert {record["ExtId__c"] for record in mock.org.records("Account")} == {str(n) for n in range(200)} - {"77"}
    (letter,) = letters
    assert letter.key == b"c77"
    assert "STRING_TOO_LONG" in letter.header("__connect.errors.exception.message")
    collections = [call for call in mock.calls if call.writes]
    assert len(collections) <= 3, "rows go together, not one by one"
