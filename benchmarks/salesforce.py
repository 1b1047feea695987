"""The Salesforce sink: orders as records of one object, by requests of 200 and by bulk jobs of 10,000."""

from __future__ import annotations

from typing import Any

from benchmarks import report, sink_rows
from benchmarks.cluster import Cluster, on_a_cluster, stand_in

ROWS = 100_000
MANIFEST = """
---
apiVersion: trunkline/v1
kind: Connection
metadata: {name: crm}
spec:
  connector: salesforce
  config:
    url: ${env:SF_URL}
    auth: {type: client_credentials, client_id: "${env:SF_CLIENT_ID}", client_secret: "${env:SF_CLIENT_SECRET}"}
    http: {allow_private: ["127.0.0.1"]}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {name: "{name}"}
spec:
  from: orders
  start: earliest
  connector: salesforce
  connection: crm
  config:
    object: Account
    external_id: ExtId__c
    api: {api}
    job_poll: 500ms
    fields: {ExtId__c: event.id, Name: event.customer, AnnualRevenue: event.amount, Description: event.note}
"""


async def run(rounds: int) -> list[str]:
    """Measures, keeps the results, and returns the lines of the table."""
    return await on_a_cluster(lambda cluster: _measured(cluster, rounds))


def _measured(cluster: Cluster, rounds: int) -> list[str]:
    sink_rows.load(cluster, ROWS)
    rows: list[dict[str, Any]] = []
    for label, api in (("collections of 200", "rest"), ("bulk jobs", "bulk")):
        with stand_in(cluster, "salesforce", ["api_limit=1000000"]) as env:
            manifest = MANIFEST.replace("{api}", api)
            rows.append(sink_rows.measure(cluster, label, manifest, env, count=ROWS, rounds=rounds))
    report.add("Salesforce sink", rows, [f"{ROWS:,} upserts. {sink_rows.NOTE}"])
    return report.table(rows)
