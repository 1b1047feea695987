"""The fallback of a sink: two scripted sinks as one, delivered to by the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from deliveries import Book, ScriptedSink, breaker_of, deliveries, delivering, gates, ok, until

from trunkline.bus.delivery.breaker import BreakerState
from trunkline.bus.delivery.fallback import FallbackSink
from trunkline.bus.delivery.gates import Gate
from trunkline.core.contracts import PluginContext, Promises
from trunkline.core.event import Event
from trunkline.core.log import get_logger
from trunkline.core.manifests import ManifestError, load_text
from trunkline.core.manifests.check import check
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict


def down(_event: Event, _times: int) -> Verdict:
    """Nothing is taken."""
    return Retry("down")


def both(first: ScriptedSink, other: ScriptedSink, *, after: int = 3, through: Sequence[Gate] = ()) -> FallbackSink:
    """The two as one; the first one's breaker is among the gates, the other's account has gates of its own."""
    breaker = breaker_of(through) if through else None
    return FallbackSink(first, other, after=after, breaker=breaker, other_gates=gates())


async def test_a_record_that_failed_so_often_goes_to_the_fallback_and_is_delivered() -> None:
    first, other, book = ScriptedSink(down), ScriptedSink(lambda _event, _times: Ok("row 7")), Book()
    delivering(both(first, other), book).submit(deliveries(book, ["a"]))
    await until(lambda: len(book.settled) == 1)
    assert book.settled == {0: "delivered"}
    assert book.details == {0: "fallback: row 7"}
    assert (len(first.calls), len(other.calls)) == (3, 1)


async def test_a_record_that_the_first_sink_takes_in_time_never_comes_to_the_fallback() -> None:
    first = ScriptedSink(lambda _event, times: Unknown("reset") if times < 3 else Ok())
    other, book = ScriptedSink(ok), Book()
    delivering(both(first, other), book).submit(deliveries(book, ["a", "b"]))
    await until(lambda: len(book.settled) == 2)
    assert other.calls == []


async def test_of_a_batch_only_the_records_that_failed_go_to_the_fallback() -> None:
    many = Promises(idempotent=True, max_batch=4)
    first = ScriptedSink(lambda event, _times: Retry("busy") if event.offset % 2 else Ok(), many)
    other, book = ScriptedSink(ok, many), Book()
    delivering(both(first, other, after=1), book).submit(deliveries(book, list("abcd")))
    await until(lambda: len(book.settled) == 4)
    assert other.calls == [[1, 3]]
    assert [book.details[offset] for offset in range(4)] == [None, "fallback", None, "fallback"]


@pytest.mark.parametrize("refusing", ["first", "other"])
async def test_what_either_sink_refuses_is_a_dead_letter(refusing: str) -> None:
    def refuse(_event: Event, _times: int) -> Verdict:
        return Dead("no such column", code="row.bad")

    first = ScriptedSink(refuse if refusing == "first" else down)
    other, book = ScriptedSink(refuse), Book()
    delivering(both(first, other, after=1), book).submit(deliveries(book, ["a"]))
    await until(lambda: len(book.settled) == 1)
    assert book.failures[0].code == "row.bad"
    assert len(other.calls) == (0 if refusing == "first" else 1)


async def test_while_the_breaker_is_open_records_go_to_the_fallback_at_once() -> None:
    account = gates(wait=60, longest=60)
    first, other, book = ScriptedSink(down), ScriptedSink(ok), Book()
    out = delivering(both(first, other, through=account), book, through=())
    out.submit(deliveries(book, [f"k{n}" for n in range(100)]))
    await until(lambda: len(book.settled) == 100)
    assert breaker_of(account).state is BreakerState.OPEN
    assert set(book.settled.values()) == {"delivered"}
    assert len(first.calls) < 100
    assert {book.details[offset] for offset in book.settled} == {"fallback"}


async def test_when_neither_takes_a_record_its_attempts_are_used_up() -> None:
    first, other, book = ScriptedSink(down), ScriptedSink(down), Book()
    delivering(both(first, other, after=2), book, retry={"attempts": 4}).submit(deliveries(book, ["a"]))
    await until(lambda: len(book.settled) == 1)
    assert (book.failures[0].code, book.failures[0].attempts) == ("sink.exhausted", 4)
    assert len(other.calls) == 3  # from the second attempt on


async def test_it_promises_what_both_promise_and_closes_both(tmp_path: Path) -> None:
    class Closing(ScriptedSink):
        closed = 0

        async def close(self) -> None:
            Closing.closed += 1

    first = Closing(ok, Promises(idempotent=True, max_batch=200))
    other = Closing(ok, Promises(idempotent=False, max_batch=10))
    one = both(first, other)
    assert one.promises == Promises(idempotent=False, max_batch=10)
    await one.open(PluginContext("", "out", tmp_path, get_logger("test")))
    await one.close()
    assert Closing.closed == 2


def manifest(fallback: str) -> Any:
    """A project with a sink and its fallback."""
    return load_text(f"""
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: orders}}
---
apiVersion: trunkline/v1
kind: Connection
metadata: {{name: partner}}
spec: {{connector: http, config: {{base_url: "https://partner.example.com"}}}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {{name: out}}
spec:
  from: orders
  start: earliest
  connector: http
  connection: partner
  config: {{url: /}}
  fallback: {fallback}
""")


@pytest.mark.parametrize(
    ("fallback", "where", "message"),
    [
        ("{connector: htp}", "spec.fallback.connector", "htp"),
        ("{connector: http, connection: none}", "spec.fallback.connection", "no connection"),
        ("{connector: http, connection: partner, config: {ulr: x}}", "spec.fallback.config", "ulr"),
        ("{connector: file, config: {folder: /tmp/x, format: {type: jsonl}}}", "spec.fallback", "range"),
    ],
    ids=["plug-in", "connection", "config", "contiguous"],
)
def test_a_fallback_that_can_not_work_is_found_by_validate(fallback: str, where: str, message: str) -> None:
    with pytest.raises(ManifestError) as found:
        check(manifest(fallback))
    shown = str(found.value)
    assert where in shown
    assert message in shown


async def test_the_fallback_waits_for_the_gates_of_its_own_account() -> None:
    first, other, book = ScriptedSink(down), ScriptedSink(ok), Book()
    busy = gates()
    busy[0].ended([Event(None)], [Retry("slow down", after=0.05)])
    one = FallbackSink(first, other, after=1, breaker=None, other_gates=busy)
    delivering(one, book, retry={"attempts": 1000}).submit(deliveries(book, ["a"]))
    await asyncio.sleep(0.02)
    assert other.calls == []
    await until(lambda: len(book.settled) == 1)
    assert book.details == {0: "fallback"}
