"""How a person is told where a pipeline can't go on: every partition, however many there are."""

from __future__ import annotations

from trunkline.bus.commitfaults import CommitFault, error_of


def test_of_many_partitions_all_are_named_and_what_is_lost_is_summed() -> None:
    lost = {0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 6: 6, 7: 7, 9: 8}
    faults = [CommitFault("expired", ("orders", number), 10, first=10 + count) for number, count in lost.items()]
    reason = error_of("bill", "bill.retry", faults).message
    assert "orders[4] is committed up to 10 and its first record is at 15 now: 5 were deleted" in reason
    assert "orders[6] is" not in reason
    assert reason.endswith("and in 3 more partitions (orders[6-7, 9]) 21 were deleted as well, 36 in all")


def test_of_thousands_of_partitions_the_message_is_a_line_and_the_sum_is_right() -> None:
    faults = [CommitFault("expired", ("orders", 2 * number), 0, first=10) for number in range(5000)]
    reason = error_of("bill", "bill.retry", faults).message
    assert "in 4995 more partitions" in reason
    assert "50000 in all" in reason
    assert len(reason) < 1500
