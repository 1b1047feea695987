"""The offset tracker and the ledger: no commit passes what is not settled, and the ledger counts what the commit passed."""

from __future__ import annotations

import zlib
from array import array

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from trunkline.bus.delivery.offsets import OffsetTracker
from trunkline.bus.ledger import MAX_METADATA, OUTCOMES, Ledger, Outcome, Plan, total
from trunkline.core.errors import ConfigurationError

BIG = 2**63 - 1


class TrackerMachine(RuleBasedStateMachine):
    """Any order of reading, settling and committing, against a model that keeps everything."""

    @initialize(position=st.integers(0, 1000))
    def begin(self, position: int) -> None:
        self.position = position
        self.tracker = OffsetTracker(position, Ledger(first=position))
        self.read: list[int] = []
        self.settled: dict[int, tuple[Outcome, int]] = {}
        self.commits = [position]

    @rule(gap=st.integers(1, 50))
    def reads(self, gap: int) -> None:
        offset = (self.read[-1] if self.read else self.position - 1) + gap
        self.tracker.add(offset)
        self.read.append(offset)

    @precondition(lambda self: len(self.settled) < len(self.read))
    @rule(data=st.data(), outcome=st.sampled_from(OUTCOMES), outputs=st.integers(0, 3))
    def settles(self, data: st.DataObject, outcome: Outcome, outputs: int) -> None:
        offset = data.draw(st.sampled_from([one for one in self.read if one not in self.settled]))
        self.tracker.settle(offset, outcome, outputs)
        self.settled[offset] = (outcome, outputs)

    @precondition(lambda self: bool(self.settled))
    @rule(data=st.data())
    def does_not_settle_twice(self, data: st.DataObject) -> None:
        with pytest.raises(KeyError):
            self.tracker.settle(data.draw(st.sampled_from(sorted(self.settled))), "delivered")

    @rule()
    def does_not_settle_what_was_not_read(self) -> None:
        with pytest.raises(KeyError):
            self.tracker.settle((self.read[-1] if self.read else self.position - 1) + 1, "delivered")

    @rule()
    def advances(self) -> None:
        before = self.tracker.commit
        assert self.tracker.advance() is (self.tracker.commit > before)
        self.commits.append(self.tracker.commit)
        open_offsets = [one for one in self.read if one not in self.settled]
        passed = [one for one in self.read if not open_offsets or one < open_offsets[0]]
        assert self.tracker.commit == (passed[-1] + 1 if passed else self.position)

    @invariant()
    def no_commit_passes_an_unsettled_offset(self) -> None:
        if not hasattr(self, "tracker"):
            return
        assert all(one in self.settled for one in self.read if one < self.tracker.commit)
        assert self.commits == sorted(self.commits)

    @invariant()
    def the_ledger_accounts_for_exactly_the_records_below_the_commit(self) -> None:
        if not hasattr(self, "tracker"):
            return
        passed = [one for one in self.read if one < self.tracker.commit]
        ledger = self.tracker.ledger
        assert ledger.read == len(passed) == self.tracker.ledger.settled
        assert ledger.open == 0
        for outcome in OUTCOMES:
            assert getattr(ledger, outcome) == sum(self.settled[one][0] == outcome for one in passed)
        assert ledger.outputs == sum(self.settled[one][1] for one in passed)
        assert ledger.checksum == zlib.crc32(b"".join(one.to_bytes(8, "little") for one in passed))
        assert self.tracker.pending == len(self.read) - len(passed)

    @invariant()
    def what_is_passed_is_known(self) -> None:
        if hasattr(self, "tracker") and self.read:
            held = [one for one in self.read if one >= self.tracker.commit]
            assert self.tracker.passed(self.tracker.commit)
            assert self.tracker.passed(self.read[-1] + 1) is not bool(held)


TestTracker = TrackerMachine.TestCase
TestTracker.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


numbers = st.integers(0, BIG)


@given(
    values=st.lists(numbers, min_size=9, max_size=9),
    checksum=st.integers(0, 2**32 - 1),
    plan=st.none() | numbers.map(Plan),
    topic_id=st.sampled_from(["", "-ijQVJuk9RKOFZAmKjKJ_A"]),
)
def test_metadata_brings_ledger_and_plan_back_in_at_most_512_bytes(
    values: list[int], checksum: int, plan: Plan | None, topic_id: str
) -> None:
    ledger = Ledger(*values, checksum=checksum, topic_id=topic_id)
    text = ledger.to_metadata(plan)
    assert len(text.encode()) <= MAX_METADATA
    assert Ledger.from_metadata(text, 5) == (ledger, plan)


@pytest.mark.parametrize("text", [None, "", "somebody else's note"])
def test_a_commit_without_metadata_of_ours_begins_a_ledger_at_its_offset(text: str | None) -> None:
    assert Ledger.from_metadata(text, 42) == (Ledger(first=42), None)


def test_a_commit_of_the_version_before_has_no_topic_id() -> None:
    text = "tl1:2,10,5,3,1,1,0,0,4,99,-1"
    assert Ledger.from_metadata(text, 0) == (Ledger(10, 2, 5, 3, 1, 1, outputs=4, checksum=99), None)


@pytest.mark.parametrize("text", ["tl3:1,2,3", "tl99:", "tlx:1"])
def test_metadata_of_a_newer_version_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        Ledger.from_metadata(text, 0)
    assert raised.value.code == "ledger.version"


@given(st.lists(st.integers(0, BIG), max_size=50), st.integers(0, 50))
def test_the_checksum_does_not_depend_on_how_the_offsets_were_grouped(offsets: list[int], cut: int) -> None:
    whole, parts = Ledger(), Ledger()
    whole.add(array("q", offsets))
    parts.add(array("q", offsets[:cut]))
    parts.add(array("q", offsets[cut:]))
    assert whole == parts


def test_the_checksum_tells_a_missing_offset() -> None:
    whole, missing = Ledger(), Ledger()
    whole.add(array("q", [1, 2, 3]))
    missing.add(array("q", [1, 3]))
    assert whole.checksum != missing.checksum


def test_a_copy_goes_its_own_way() -> None:
    ledger = Ledger(read=1)
    ledger.copy().add(array("q", [7]), delivered=1)
    assert ledger == Ledger(read=1)


def test_the_total_adds_up_the_counts() -> None:
    found = total([Ledger(first=3, read=2, delivered=1, dead=1, outputs=4), Ledger(first=9, read=1, filtered=1)])
    assert (found.read, found.delivered, found.filtered, found.dead, found.outputs) == (3, 1, 1, 1, 4)
    assert found.open == 0
