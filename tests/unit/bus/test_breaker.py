"""The circuit breaker of an account, on a clock that goes when it is told to."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from tests.clock import Clock
from trunkline.bus.delivery.breaker import Breaker, BreakerState
from trunkline.bus.delivery.gates import NamedWait, Passage
from trunkline.bus.sink.accounts import Gates
from trunkline.core.event import Event
from trunkline.core.manifests import load_text
from trunkline.core.manifests.models import BreakerSpec
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

DOWN = Retry("down")


def breaker(clock: Clock | None = None, **spec: float) -> Breaker:
    """A breaker that opens after 4 calls of which half failed."""
    return Breaker("account", BreakerSpec.model_validate({"calls": 4, **spec}), clock=clock or Clock(100.0))


def call(one: Breaker, offset: int, *verdicts: Verdict) -> bool:
    """A call with these verdicts begins and ends."""
    one.started(len(verdicts))
    return one.ended([Event(None, topic="t", offset=offset + index) for index in range(len(verdicts))], verdicts)


def fail(one: Breaker, offsets: Sequence[int]) -> None:
    """Calls of one record each fail."""
    for offset in offsets:
        call(one, offset, DOWN)


def test_it_opens_when_half_of_the_calls_fail() -> None:
    one = breaker()
    for offset, verdict in enumerate([Ok(), DOWN, Ok(), DOWN, Ok(), DOWN, Ok()]):
        call(one, offset, verdict)
        assert one.state is BreakerState.CLOSED  # three different records failed
    call(one, 7, Unknown("reset"))
    assert one.state is BreakerState.OPEN


def test_it_does_not_open_before_enough_calls_were_made() -> None:
    one = breaker()
    fail(one, range(3))
    assert one.state is BreakerState.CLOSED
    fail(one, [3])
    assert one.state is BreakerState.OPEN


def test_one_record_that_always_fails_does_not_open_it() -> None:
    one = breaker()
    fail(one, [7] * 50)
    assert one.state is BreakerState.CLOSED
    assert one.delay(1) == 0.0


def test_a_smaller_share_of_failures_does_not_open_it() -> None:
    one = breaker(share=0.8)
    for offset in range(100):
        call(one, offset, DOWN if offset % 4 else Ok())
    assert one.state is BreakerState.CLOSED


def test_calls_older_than_the_window_count_no_more() -> None:
    clock = Clock(100.0)
    one = breaker(clock, window=10)
    for offset in range(40):
        clock.now += 4.0
        fail(one, [offset])
    assert one.state is BreakerState.CLOSED


def test_a_long_time_of_success_does_not_keep_it_closed() -> None:
    one = breaker()
    for offset in range(10_000):
        call(one, offset, Ok())
    fail(one, range(10_000, 10_010))
    assert one.state is BreakerState.OPEN


@pytest.mark.parametrize("answer", [Ok(), Dead("no"), Retry("busy", after=3)], ids=["ok", "dead", "named wait"])
def test_a_call_is_answered_where_any_of_its_records_is(answer: Verdict) -> None:
    one = breaker()
    for offset in range(0, 40, 2):
        call(one, offset, DOWN, answer)
    assert one.state is BreakerState.CLOSED


def test_open_it_lets_one_probe_through_at_a_time_and_waits_longer_after_each_that_fails() -> None:
    clock = Clock(100.0)
    one = breaker(clock, calls=1, longest=8)
    fail(one, [0])
    waits = []
    for _ in range(6):
        waits.append(one.delay(1))
        clock.now += one.delay(1)
        assert one.delay(1) == 0.0
        one.started(1)
        assert one.state is BreakerState.HALF_OPEN
        assert one.delay(1) > 0.0  # a probe is under way
        one.ended([Event(None)], [DOWN])
    assert waits == [1, 2, 4, 8, 8, 8]


def test_calls_that_end_late_while_it_is_open_make_no_wait_longer() -> None:
    one = breaker(calls=1)
    fail(one, [0])
    for offset in range(1, 30):
        one.ended([Event(None, offset=offset)], [DOWN])
    assert one.delay(1) == 1.0


def test_a_probe_that_is_answered_closes_it_and_the_waits_begin_anew() -> None:
    clock = Clock(100.0)
    one = breaker(clock, calls=1)
    for _ in range(3):
        fail(one, [0])
        clock.now += one.delay(1)
    call(one, 0, Ok())
    assert one.state is BreakerState.CLOSED
    fail(one, [0])
    assert one.delay(1) == 1.0


def test_a_probe_that_was_cancelled_makes_room_for_another() -> None:
    clock = Clock(100.0)
    one = breaker(clock, calls=1)
    fail(one, [0])
    clock.now += 1
    one.started(1)
    one.ended([Event(None)], ())
    assert one.delay(1) == 0.0


def test_failures_are_excused_from_the_call_that_opens_it_until_one_is_answered() -> None:
    clock = Clock(100.0)
    one = breaker(clock)
    assert [call(one, offset, DOWN) for offset in range(4)] == [False, False, False, True]
    clock.now += 1
    assert call(one, 4, DOWN)
    clock.now += 2
    call(one, 5, Ok())
    assert not call(one, 6, DOWN)


def test_those_who_wait_are_told_when_it_closes() -> None:
    told: list[str] = []
    clock = Clock(100.0)
    one = breaker(clock, calls=1)
    passage = Passage([one])
    passage.open(lambda: told.append("open"))
    fail(one, [0])
    clock.now += 1
    call(one, 0, Ok())
    assert told == ["open"]
    passage.close()
    fail(one, [0])
    clock.now += 1
    call(one, 0, Ok())
    assert told == ["open"]


def test_the_metric_shows_its_state() -> None:
    clock = Clock(100.0)
    one = Breaker("metric-account", BreakerSpec(calls=1), clock=clock)
    shown = []
    for step in (
        lambda: None,
        lambda: fail(one, [0]),
        lambda: one.started(1),
        lambda: one.ended([Event(None)], [Ok()]),
    ):
        step()
        shown.append(REGISTRY.get_sample_value("trunkline_breaker_state", {"connection": "metric-account"}))
    assert shown == [0, 2, 1, 0]


def test_a_named_wait_holds_calls_back_as_long_as_it_says_and_at_most_five_minutes() -> None:
    clock = Clock(100.0)
    wait = NamedWait("account", clock=clock)
    assert wait.delay(1) == 0.0
    wait.ended([Event(None), Event(None)], [Retry("slow down", after=7), Retry("slow down", after=3)])
    assert wait.delay(1) == 7
    clock.now += 7
    assert wait.delay(1) == 0.0
    wait.ended([Event(None)], [Retry("tomorrow", after=86_400)])
    assert wait.delay(1) == 300


CONNECTION = """
apiVersion: trunkline/v1
kind: Connection
metadata: {name: partner}
spec: {connector: http, config: {base_url: "https://partner.example.com"}, breaker: {calls: 1, wait: SECONDS}}
---
"""
SINK = """
apiVersion: trunkline/v1
kind: Sink
metadata: {name: NAME}
spec: {from: orders, start: earliest, connector: http, EXTRA config: {url: "https://partner.example.com/"}}
---
"""


def test_pipelines_of_one_connection_pass_the_same_gates_and_others_their_own() -> None:
    shared = [SINK.replace("NAME", name).replace("EXTRA", "connection: partner,") for name in ("one", "two")]
    own = [SINK.replace("NAME", name).replace("EXTRA", "") for name in ("three", "four")]
    project = load_text(CONNECTION.replace("SECONDS", "5s") + "".join(shared + own))
    gates = Gates()
    one, two, three, four = (
        gates.for_pipeline(project.pipelines[name], project) for name in ("one", "two", "three", "four")
    )  # type: ignore[arg-type]
    assert one is two
    assert len({id(found) for found in (one, three, four)}) == 3
    fail(one.breaker, [0])
    assert 4 < one.breaker.delay(1) <= 5  # as its manifest says


def test_a_connection_that_changed_has_new_gates_and_one_that_did_not_keeps_them() -> None:
    text = CONNECTION + SINK.replace("NAME", "one").replace("EXTRA", "connection: partner,")
    gates = Gates()
    projects = [load_text(text.replace("SECONDS", seconds)) for seconds in ("5s", "5s", "6s")]
    first, second, third = (gates.for_pipeline(one.pipelines["one"], one) for one in projects)  # type: ignore[arg-type]
    assert first is second
    assert first is not third


def test_a_connection_whose_secret_holds_another_value_has_new_gates(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("the first one")
    secret = f"config: {{auth: {{type: bearer, token: '${{file:{file}}}'}}, "
    text = CONNECTION.replace("SECONDS", "5s").replace("config: {", secret)
    project, gates = load_text(text + SINK.replace("NAME", "one").replace("EXTRA", "connection: partner,")), Gates()

    def found() -> object:
        return gates.for_pipeline(project.sinks["one"], project)

    first = found()
    assert found() is first
    file.write_text("the second one")
    assert found() is not first
