"""The SFTP sink: orders as CSV files of up to 50,000 rows."""

from __future__ import annotations

from benchmarks import report, sink_rows
from benchmarks.cluster import Cluster, on_a_cluster, stand_in

ROWS = 300_000
MANIFEST = """
---
apiVersion: trunkline/v1
kind: Connection
metadata: {name: dropbox}
spec:
  connector: sftp
  config:
    host: ${env:SFTP_HOST}
    port: ${env:SFTP_PORT}
    user: ${env:SFTP_USER}
    private_key: ${env:SFTP_PRIVATE_KEY}
    host_keys: ["${env:SFTP_HOST_KEY}"]
    allow_private: ["127.0.0.1"]
---
apiVersion: trunkline/v1
kind: Sink
metadata: {name: "{name}"}
spec:
  from: orders
  start: earliest
  connector: sftp
  connection: dropbox
  config: {folder: /, format: csv}
"""


async def run(rounds: int) -> list[str]:
    """Measures, keeps the results, and returns the lines of the table."""
    return await on_a_cluster(lambda cluster: _measured(cluster, rounds))


def _measured(cluster: Cluster, rounds: int) -> list[str]:
    sink_rows.load(cluster, ROWS)
    with stand_in(cluster, "sftp") as env:
        rows = [sink_rows.measure(cluster, "sftp", MANIFEST, env, count=ROWS, rounds=rounds)]
    report.add("SFTP sink", rows, [f"{ROWS:,} rows as CSV files. {sink_rows.NOTE}"])
    return report.table(rows)
