"""Members of consumer groups whose doings are noted: what they owned and when, what they asked to commit. They can be made to hang.

`Watch.replaced` puts its own kind of consumer in the place of the client's; the engine is the real one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

from confluent_kafka import Consumer, Message, TopicPartition

from tests.chaos.history import Committed, Owned
from trunkline.bus.kafka import settings as clients

Rebalance = Callable[[Consumer, list[TopicPartition]], None]


@dataclass(frozen=True, slots=True)
class Asked:
    """A member asked for a commit, whether or not the broker took it."""

    member: str
    group: str
    topic: str
    partition: int
    offset: int
    at: float


class Watch:
    """What the members of some groups did. `options` gives for a client's configuration what is added to it."""

    def __init__(self, options: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda _config: {}) -> None:
        self.options = options
        self.owned: list[Owned] = []
        """With the group as the route."""
        self.asked: list[Asked] = []
        self.members: list[WatchedConsumer] = []
        self._lock = threading.Lock()

    @contextmanager
    def replaced(self) -> Iterator[None]:
        """Consumers that are made meanwhile are watched."""

        def made(config: dict[str, Any]) -> Consumer:
            return WatchedConsumer(config, self)

        with patch.object(clients, "Consumer", made):
            yield

    def joined(self, member: WatchedConsumer) -> None:
        """Notes a new member, and gives it a name. Not each consumer is one: a group's commits are asked by some that never join."""
        with self._lock:
            self.members.append(member)
            member.name = f"{member.group}-{len(self.members)}"

    def owns(self, member: WatchedConsumer, partitions: Iterable[TopicPartition], owner: str) -> None:
        """Notes who owns partitions from now on."""
        now = time.time()
        with self._lock:
            for part in partitions:
                held = self._owner(member.group, part)
                if owner or held == member.name:  # who lost a partition to another one takes nothing away from it
                    self.owned.append(Owned(member.group, part.topic, part.partition, owner, now))

    def _owner(self, group: str, part: TopicPartition) -> str:
        for one in reversed(self.owned):
            if (one.route, one.topic, one.partition) == (group, part.topic, part.partition):
                return one.member
        return ""

    def asks(self, member: WatchedConsumer, offsets: Iterable[TopicPartition]) -> None:
        """Notes what a member wants to commit."""
        now = time.time()
        with self._lock:
            self.asked += [
                Asked(member.name, member.group, part.topic, part.partition, part.offset, now) for part in offsets
            ]

    def of(self, group: str) -> list[WatchedConsumer]:
        """The members of a group that are open, oldest first."""
        with self._lock:
            return [member for member in self.members if member.group == group and not member.closed]

    def named(self, commits: Iterable[Committed], group: str) -> Iterator[Committed]:
        """The broker's commits with the member that asked for each: the last one that did before the broker took it."""
        asked: dict[tuple[str, int, int], list[Asked]] = {}
        for one in self.asked:
            if one.group == group:
                asked.setdefault((one.topic, one.partition, one.offset), []).append(one)
        for commit in commits:
            before = [
                one for one in asked.get((commit.topic, commit.partition, commit.offset), ()) if one.at <= commit.at
            ]
            yield replace(commit, by=before[-1].member if before else "")


class WatchedConsumer(Consumer):
    """The client's own consumer, which tells a `Watch` what it does."""

    def __init__(self, config: dict[str, Any], watch: Watch) -> None:
        super().__init__({**config, **watch.options(config)})
        self.group: str = config["group.id"]
        self.name = ""
        self.closed = False
        self.hangs = threading.Event()
        """Set while the member's polling thread really hangs."""
        self._free = threading.Event()
        self._free.set()
        self._watch = watch

    def hang(self) -> None:
        """From the next poll on it polls no more: as in a call that does not return."""
        self._free.clear()

    def go_on(self) -> None:
        """Polls on."""
        self._free.set()

    def consume(self, *arguments: Any, **named: Any) -> list[Message]:
        if not self._free.is_set():
            self.hangs.set()
            self._free.wait()
            self.hangs.clear()
        return super().consume(*arguments, **named)

    def commit(self, *arguments: Any, **named: Any) -> Any:
        self._watch.asks(self, named.get("offsets") or ())
        return super().commit(*arguments, **named)

    def subscribe(
        self,
        topics: list[str],
        on_assign: Rebalance | None = None,
        on_revoke: Rebalance | None = None,
        on_lost: Rebalance | None = None,
    ) -> None:
        assert on_assign is not None, "the engine answers rebalances itself"
        assert on_revoke is not None, "the engine answers rebalances itself"
        assert on_lost is not None, "the engine answers rebalances itself"
        assign, revoke, lose = on_assign, on_revoke, on_lost

        def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            self._watch.owns(self, partitions, self.name)
            assign(consumer, partitions)

        def revoked(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            revoke(consumer, partitions)
            self._watch.owns(self, partitions, "")

        def lost(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            self._watch.owns(self, partitions, "")
            lose(consumer, partitions)

        self._watch.joined(self)
        super().subscribe(topics, on_assign=assigned, on_revoke=revoked, on_lost=lost)

    def close(self) -> None:
        self._free.set()
        self.closed = True
        super().close()
