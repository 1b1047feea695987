"""Budgets: whatever happens to workers, the account never counts more than it allows, and what it allows is used."""

from __future__ import annotations

import math
import random
import time

import pytest
from budget_world import START, Call, Load, World
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from trunkline.bus.budget.account import Account, Identity
from trunkline.bus.budget.claim import Claim, Limits, Statement, Want
from trunkline.bus.budget.forecast import seconds_left
from trunkline.bus.budget.gate import AccountQuota, BudgetGate
from trunkline.bus.budget.sharing import Demand, shares
from trunkline.bus.budget.spending import Spending
from trunkline.bus.budget.standing import COOLING, DAY, Standing, day_of
from trunkline.core.errors import ConfigurationError
from trunkline.core.event import Event
from trunkline.core.quota import Notice
from trunkline.core.verdicts import Retry

GIVEN = [Phase.explicit, Phase.reuse, Phase.generate]
"""Without shrinking: a seed is as small as another."""


def disturbed(seed: int, limits: Limits) -> World:
    """Half a minute and more in which workers come, die, come again, and are cut off from the log."""
    rng = random.Random(seed)
    world = World(
        seed,
        limits,
        way=rng.choice([0.01, 0.3, 1.0]),
        work=rng.choice([0.01, 0.3, 2.0]),
        slow=rng.choice([0.01, 0.1, 1]),
    )
    for name in "abc"[: rng.choice([1, 2, 3])]:
        world.start(name, Load("p", calls=rng.choice([1, 5, 50])))
    for _ in range(10):
        world.run(rng.uniform(0.2, 9))
        name, fault = rng.choice("abc"), rng.choice(["kill", "start", "cut", "nothing"])
        if fault == "start" and name not in world.workers:
            world.start(name, Load("p", calls=rng.choice([1, 5, 50])))
        elif fault == "kill" and name in world.workers:
            world.kill(name)
        elif fault == "cut" and name in world.workers:
            world.cut(name, rng.uniform(0, 8))
    return world


@settings(max_examples=12, phases=GIVEN, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), second=st.sampled_from([1, 2, 7, 20]), minute=st.sampled_from([None, 5, 100, 600]))
def test_no_second_and_no_minute_of_the_account_has_more_requests_than_it_allows(
    seed: int, second: int, minute: int | None
) -> None:
    world = disturbed(seed, Limits(per_second=second, per_minute=minute))
    assert world.most_in(1.0) <= second
    if minute is not None:
        assert world.most_in(60.0) <= minute


@settings(max_examples=5, phases=GIVEN, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), at_once=st.sampled_from([1, 3, 10]))
def test_no_more_calls_are_under_way_at_once_than_the_account_allows(seed: int, at_once: int) -> None:
    rng = random.Random(seed)
    world = World(seed, Limits(concurrent=at_once), way=0.05, work=rng.choice([0.1, 1.0, 4.0]), timeout=5.0)
    for name in "abc":
        world.start(name, Load("p", calls=50))
    for _ in range(6):
        world.run(rng.uniform(0.2, 9))
        name = rng.choice("abc")
        if name in world.workers and rng.random() < 0.5:
            world.cut(name, rng.uniform(0, 8))
    world.run(5)
    assert 0 < world.most_at_once() <= at_once


@settings(max_examples=5, phases=GIVEN, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), limit=st.sampled_from([3, 40, 500]))
def test_a_day_has_no_more_requests_than_allowed_also_when_all_workers_start_again_and_the_next_day_has_as_many(
    seed: int, limit: int
) -> None:
    world = World(seed, Limits(per_day=limit), way=0.01, work=0.05)
    midnight = day_of(START) + DAY - START
    world.now = midnight - 120
    for name in "abc":
        world.start(name, Load("p", calls=5))
    world.run(80)
    for name in "abc":
        world.kill(name)
    world.run(3)
    for name in "abc":
        world.start(name, Load("p", calls=5))
    world.run(160)
    before = sum(call.arrived < midnight for call in world.calls)
    after = sum(call.arrived >= midnight for call in world.calls)
    assert before <= limit
    assert after <= limit
    assert after >= 0.9 * limit


@pytest.mark.parametrize("workers", [1, 3])
def test_what_the_account_allows_is_used_nearly_whole(workers: int) -> None:
    world = World(7, Limits(per_second=20), way=0.005, work=0.01, slow=0.02)
    for name in "abc"[:workers]:
        world.start(name, Load("p", calls=20))
    world.run(30)
    assert len(world.calls) >= 0.9 * 20 * 30


def test_when_a_worker_dies_the_others_take_what_it_had() -> None:
    world = World(8, Limits(per_second=20), way=0.005, work=0.01, slow=0.02)
    world.start("a", Load("p", calls=20))
    world.start("b", Load("p", calls=20))
    world.run(20)
    world.kill("b")
    world.run(10)
    before = len(world.calls)
    world.run(10)
    assert len(world.calls) - before >= 0.9 * 20 * 10
    assert world.most_in(1.0) <= 20


def test_what_a_worker_does_not_use_goes_to_those_who_want_it() -> None:
    world = World(9, Limits(per_second=20, concurrent=8), way=0.005, work=0.1, slow=0.02)
    world.start("a", Load("p", calls=50))
    world.start("idle", Load("p", calls=0))
    world.run(20)
    assert len(world.calls) >= 0.8 * 20 * 20


@pytest.mark.parametrize("limits", [Limits(per_second=20), Limits(concurrent=4)], ids=["second", "concurrent"])
def test_pipelines_share_by_weight_and_none_starves(limits: Limits) -> None:
    world = World(10, limits, way=0.005, work=0.1, slow=0.02)
    loads = []
    for name in "ab":
        loads += [Load("urgent", "high", calls=50), Load("usual", "normal", calls=50), Load("later", "low", calls=50)]
        world.start(name, *loads[-3:])
    world.run(12)
    sent = {name: sum(load.sent for load in loads if load.name == name) for name in ("urgent", "usual", "later")}
    assert sent["urgent"] == pytest.approx(4 * sent["later"], rel=0.15)
    assert sent["usual"] == pytest.approx(2 * sent["later"], rel=0.15)


def test_workers_with_pipelines_of_different_priority_share_by_weight() -> None:
    world = World(11, Limits(per_second=20), way=0.005, work=0.01, slow=0.02)
    urgent, later = Load("urgent", "high", calls=50), Load("later", "low", calls=50)
    world.start("a", urgent)
    world.start("b", later)
    world.run(30)
    assert urgent.sent / later.sent == pytest.approx(4, rel=0.25)


def test_fewer_requests_than_workers_go_round() -> None:
    world = World(12, Limits(per_second=1), way=0.005, work=0.01, slow=0.02)
    loads = [Load("p", calls=5) for _ in range(3)]
    for name, load in zip("abc", loads, strict=True):
        world.start(name, load)
    world.run(90)
    assert min(load.sent for load in loads) >= 10
    assert world.most_in(1.0) == 1


def test_a_wait_that_the_account_names_to_one_worker_silences_all() -> None:
    world = World(13, Limits(), way=0.005, work=0.01, slow=0.02)
    for name in "abc":
        world.start(name, Load("p", calls=3))
    told: list[float] = []

    def answer(call: Call) -> float:
        if world.now > 5 and not told:
            told.append(world.now)
            return 10.0
        return 0.0

    world.answer = answer
    world.run(30)
    heard = told[0] + 2 * world.slow + 2 * world.way + world.work
    assert not [call for call in world.calls if heard < call.arrived < told[0] + 10]
    assert {call.worker for call in world.calls if call.arrived > told[0] + 10} == {"a", "b", "c"}


def test_what_nobody_limits_costs_no_claim() -> None:
    world = World(14, Limits())
    world.start("a", Load("p", calls=3))
    world.run(5)
    assert world.calls
    assert not world.log


def test_a_worker_that_wants_nothing_more_gives_back_and_falls_silent() -> None:
    world = World(15, Limits(per_second=5, per_minute=100, concurrent=2))
    load = Load("p", calls=2)
    world.start("a", load)
    world.run(5)
    load.calls = 0
    world.run(10)
    claim = world.log[-1][0]
    assert (claim.second, claim.concurrent, claim.allow, claim.want) == (0, 0, claim.spent, Want())
    written = len(world.log)
    world.run(60)
    assert len(world.log) == written


def test_what_the_account_says_is_used_counts_more_than_our_own_count() -> None:
    world = World(16, Limits(), way=0.005, work=0.01, slow=0.02)
    worker = world.start("a", Load("p", calls=2))
    world.run(1)
    worker.account.state(used=4900, limit=5000, reset=3600.0)
    sent = len(world.calls)
    world.run(20)
    assert 90 <= len(world.calls) - sent <= 100 + 4  # 4: under way, or sent before the first slice came


def test_a_slice_that_was_given_up_counts_until_the_account_has_counted_its_last_request() -> None:
    standing = Standing()
    limits = Limits(per_second=10)
    assert standing.apply(Claim("crm", "a", "1", 1, limits, second=10), 100.0).second
    assert not standing.apply(Claim("crm", "b", "1", 1, limits, second=5), 101.0).second
    assert standing.apply(Claim("crm", "a", "1", 2, limits, second=5), 102.0).second
    assert not standing.apply(Claim("crm", "b", "1", 2, limits, second=5), 102.0 + COOLING - 0.01).second
    assert standing.apply(Claim("crm", "b", "1", 3, limits, second=5), 102.0 + COOLING).second


def test_two_requests_with_one_token_begin_a_second_after_the_answer_to_the_first() -> None:
    spending = Spending()
    spending.second, spending.second_ends = 1, 100.0
    spending.begin(0.0)
    assert spending.wait(0.5) == (
        1.5,
        "second",
    )  # without an answer: it reached the account within a second, and counts another
    spending.end(0.6)
    assert spending.wait(0.6) == (1.0, "second")
    assert spending.wait(1.6) == (0.0, None)


@given(
    limit=st.integers(0, 50),
    demands=st.dictionaries(
        st.sampled_from("abcdef"), st.builds(Demand, st.integers(0, 60), st.integers(1, 9)), max_size=6
    ),
    turn=st.integers(0, 100),
)
def test_shares_are_the_whole_limit_and_nobody_gets_less_than_its_weight_or_its_want(
    limit: int, demands: dict[str, Demand], turn: int
) -> None:
    parts = shares(limit, demands, turn)
    wanting = {name: demand for name, demand in demands.items() if demand.want}
    assert sum(parts.values()) == (limit if wanting else 0)
    total = sum(demand.weight for demand in wanting.values())
    for name, demand in wanting.items():
        assert parts[name] >= min(demand.want, limit * demand.weight // total)


@pytest.mark.parametrize(
    ("left", "spent", "refill", "expected"),
    [
        (100, 2.0, 0.0, 50.0),
        (0, 2.0, 5.0, 0.0),
        (100, 1.0, 1.0, math.inf),
        (100, 0.0, 0.0, math.inf),
        (60, 3.0, 1.0, 30.0),
    ],
)
def test_a_budget_is_used_up_when_more_is_spent_than_comes_back(
    left: int, spent: float, refill: float, expected: float
) -> None:
    assert seconds_left(left, spent, refill) == expected


def test_a_pipeline_says_what_it_waits_for_and_until_when() -> None:
    account = Account("crm", Identity("w", "1"), lambda _claim: None)
    gate = BudgetGate(account, account.turns.of("posts", 2))
    account.turns.of("posts", 2).opened.append(lambda: None)
    assert gate.delay(1) == 0.0
    assert gate.cause() is None
    refused = Retry(
        "REQUEST_LIMIT_EXCEEDED: 15000 of 15000", 60.0, "salesforce.request_limit_exceeded", "daily API requests"
    )
    gate.ended([Event(None)], [refused])
    assert gate.delay(1) > 0.0
    cause = gate.cause()
    assert cause is not None
    assert cause.reason.startswith("waiting for the budget of crm until ")
    assert "15000 of 15000" in cause.reason
    assert (cause.code, cause.limit, cause.account) == (refused.code, refused.limit, "crm")
    assert cause.next_try == pytest.approx(time.time() + 60, abs=30)


def test_the_other_workers_know_why_an_account_is_held() -> None:
    written: list[Claim] = []
    refusing, other = (Account("crm", Identity(name, "1"), written.append) for name in ("w", "v"))
    for one in (refusing, other):
        one.begin_at(0.0)
    refusing.hold(60.0, Notice("slack.rate_limited", "slow down", "messages a channel"))
    other.heard(Claim.from_record(written[-1].to_record()), at=100.0, received=time.monotonic())
    assert other.reason() == Notice("slack.rate_limited", "slow down", "messages a channel")


def test_a_day_that_the_account_says_is_used_up_is_asked_for_again_when_the_sink_says_so() -> None:
    written: list[Claim] = []
    now = [1000.0]
    account = Account("crm", Identity("w", "1"), written.append, clock=lambda: now[0])
    account.begin_at(now[0])
    turn = account.turns.of("posts", 2)
    turn.opened.append(lambda: None)

    def heard() -> None:
        for claim in written:
            account.heard(claim, at=now[0], received=now[0])
        written.clear()

    AccountQuota(account).used(15_000, 15_000, name="daily API requests", ask_again=5.0)
    heard()
    assert account.delay(turn) > 0.0
    reason = account.reason()
    assert (reason.code, reason.limit) == ("budget.exhausted", "daily API requests")
    assert "15000 of 15000" in reason.reason
    assert account.wait() == pytest.approx(5.0, abs=0.5)
    now[0] += 5.1
    account.tick()  # as it is called several times a second
    assert account.delay(turn) == 0.0, "it is asked again after limit_pause, not after a minute"


def test_a_claim_is_the_same_after_its_way_through_the_topic_and_one_of_a_newer_version_is_refused() -> None:
    claim = Claim("crm", "w", "r", 3, Limits(per_day=5), said=Statement(1, 2, None, 3), want=Want(1, 2, 3))
    assert Claim.from_record(claim.to_record()) == claim
    with pytest.raises(ConfigurationError, match="newer"):
        Claim.from_record(claim.to_record().replace(b'"v":1', b'"v":2'))
