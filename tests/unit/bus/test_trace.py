"""The trace: what a hop writes is what is found again, and no secret stands in it."""

from __future__ import annotations

import orjson
from hypothesis import given
from hypothesis import strategies as st
from records import Read

from trunkline.bus.accounting.trace import TraceBatch, hops_of
from trunkline.core.secret import Secret

ROWS = st.tuples(
    st.sampled_from(["orders", "bills"]),
    st.integers(0, 2),
    st.integers(0, 10**12),
    st.text(min_size=1, max_size=20),
    st.sampled_from(["delivered", "filtered", "dead"]),
    st.none() | st.text(max_size=30),
)


@given(st.lists(ROWS, max_size=30))
def test_every_hop_comes_back_with_its_own_outcome_and_detail(
    rows: list[tuple[str, int, int, str, str, str | None]],
) -> None:
    batch = TraceBatch("posts", "sink", "w1")
    for row in rows:
        batch.add(*row)
    assert len(batch) == len(rows)
    records = batch.drain()
    assert len(records) == len({row[:2] for row in rows})
    found = [
        (hop.topic, hop.partition, hop.offset, hop.correlation_id, hop.outcome, hop.detail)
        for record in records
        for hop in hops_of(Read(record))  # type: ignore[arg-type]
    ]
    assert sorted(found, key=repr) == sorted(rows, key=repr)
    assert len(batch) == 0
    assert batch.drain() == []


def test_a_hop_says_who_did_it() -> None:
    batch = TraceBatch("posts", "sink", "w1")
    batch.add("orders", 0, 1, "c1", "delivered", "row-17")
    (record,) = batch.drain()
    (hop,) = hops_of(Read(record))  # type: ignore[arg-type]
    assert (hop.pipeline, hop.kind, hop.worker, hop.detail) == ("posts", "sink", "w1", "row-17")
    assert hop.as_dict()["correlation_id"] == "c1"
    assert hop.at > 1_600_000_000_000


def test_columns_may_be_filled_directly() -> None:
    batch = TraceBatch("s", "stream", "w1")
    offsets, ids, outcomes, details = batch.part("orders", 0)
    for offset in range(3):
        details.update({str(len(offsets)): "why"} if offset == 1 else {})
        offsets.append(offset)
        ids.append(f"c{offset}")
        outcomes.append("dead" if offset == 1 else "delivered")
    (record,) = batch.drain()
    hops = list(hops_of(Read(record)))  # type: ignore[arg-type]
    assert [(hop.offset, hop.outcome, hop.detail) for hop in hops] == [
        (0, "delivered", None),
        (1, "dead", "why"),
        (2, "delivered", None),
    ]


def test_details_hold_no_secret_and_are_short() -> None:
    secret = Secret.of("hush-hush-99").reveal()
    batch = TraceBatch("s", "sink", "w1")
    batch.add("orders", 0, 1, "c1", "dead", f"{secret} {'x' * 5000}")
    (record,) = batch.drain()
    assert secret.encode() not in record
    assert len(record) < 1500


def test_a_trace_record_of_a_newer_version_is_passed_over() -> None:
    assert list(hops_of(Read(orjson.dumps({"v": 99, "columns": "other"})))) == []  # type: ignore[arg-type]
