"""Topics that a test deletes and makes anew."""

from __future__ import annotations

import time
from collections.abc import Sequence

from trunkline.bus.kafka import KafkaSettings, end_offsets
from trunkline.bus.topics import TopicPlan, ensure_topics, topic_identities

SECONDS = 120.0


def make_anew(settings: KafkaSettings, plans: Sequence[TopicPlan]) -> dict[str, tuple[str, str]]:
    """Deletes topics and makes others of their names, as planned; gives for each the former id and the new one.

    The broker is asked until it knows the new ones alone: for a while after a deletion it may still show the former one, which is
    then taken for the new one, or refuse both.
    """
    names = [plan.name for plan in plans]
    former = {name: one.id for name, one in topic_identities(settings, names).items()}
    admin = settings.admin()
    for deleted in admin.delete_topics(names, operation_timeout=20).values():
        deleted.result(20)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ensure_topics(settings, plans)
        now = {name: one.id for name, one in topic_identities(settings, names).items()}
        anew = now.keys() == former.keys() and all(now[name] != former[name] for name in names)
        if anew and all(len(end_offsets(settings, plan.name)) == plan.partitions for plan in plans):
            return {name: (former[name], now[name]) for name in names}
        time.sleep(0.02)
    raise TimeoutError(f"{names} were not made anew in {SECONDS:g} s")
