"""What became of a pipeline's records: the classes add up to what was read, whatever was sent again or dropped."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trunkline.bus.accounting.outcomes import CLASSES, Outcomes, Waiting, of_reader, of_source
from trunkline.bus.ledger import Ledger

COUNTS = st.integers(0, 1000)


def _adds_up(found: Outcomes) -> bool:
    return found.read == sum(getattr(found, name) for name in CLASSES) and found.carried == 0


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_of_a_reader_each_letter_waits_was_sent_again_or_dropped(
    delivered: int, waiting: int, redriving: int, dropped: int, again: int
) -> None:
    # Of the letters that were read again all were delivered.
    died = waiting + redriving + dropped + again
    first = [Ledger(read=delivered + died, delivered=delivered, dead=died)]
    second = [Ledger(read=again, delivered=again)]
    for letters in (Waiting(waiting), None):
        found = of_reader(first, second, redriving, dropped, letters)
        assert (found.dead, found.dropped, found.delivered) == (waiting, dropped, delivered + again)
        assert _adds_up(found)
        assert found.exact == (letters is not None)


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_of_a_source_each_letter_waits_was_sent_again_or_dropped(
    delivered: int, waiting: int, sent: int, dropped: int
) -> None:
    died = waiting + sent + dropped
    counts = {"read": delivered + died, "delivered": delivered, "dead": died}
    for letters in (Waiting(waiting), None):
        found = of_source(counts, sent, dropped, letters)
        assert (found.dead, found.dropped, found.delivered) == (waiting, dropped, delivered + sent)
        assert _adds_up(found)


def test_records_that_were_parked_and_dropped_are_counted_with_the_letters() -> None:
    found = of_reader([Ledger(read=5, delivered=1, dropped=2, dead=2)], [], 0, 2, Waiting())
    assert (found.dropped, found.dead) == (4, 0)
    assert _adds_up(found)
