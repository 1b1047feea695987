"""A small project that is right, for tests that break it in one place each."""

from __future__ import annotations

SHOP = """\
apiVersion: trunkline/v1
kind: Topic
metadata: {name: orders}
spec:
  partitions: 2
  schema:
    type: record
    name: Order
    fields:
      - {name: id, type: long}
      - {name: customer, type: string}
      - {name: total, type: double}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {name: bills}
---
apiVersion: trunkline/v1
kind: Connection
metadata: {name: peer}
spec: {connector: http, config: {base_url: "https://api.example.com"}}
---
apiVersion: trunkline/v1
kind: Stream
metadata: {name: billing, owner: me}
spec:
  from: [orders]
  start: earliest
  steps:
    - filter: event.id > 3
  to: [bills]
---
apiVersion: trunkline/v1
kind: Sink
metadata: {name: post}
spec:
  from: [bills]
  start: latest
  connector: http
  connection: peer
  config: {url: "/bills/{{ event.id }}"}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {name: files}
spec:
  from: [orders]
  start: latest
  connector: file
  config:
    folder: out
    format: {type: csv, columns: [id, customer]}
---
apiVersion: trunkline/v1
kind: Source
metadata: {name: reader}
spec:
  connector: file
  config: {path: in.csv, format: csv}
  to: [orders]
"""


def broken(old: str, new: str) -> str:
    """The project with `new` in place of the first `old`."""
    assert old in SHOP, old
    return SHOP.replace(old, new, 1)


def line_of(text: str, needle: str) -> int:
    """The number of the line that holds `needle`, from 1."""
    return text[: text.index(needle)].count("\n") + 1
