"""What every polled source must do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from trunkline.core.contracts import Position, RejectedInput, Source, SourceBatch, SourceEvent
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.testing.kits import SourceKit
from trunkline.core.testing.observation import cancelled_task
from trunkline.core.testing.plugin_suite import PluginSuite, Scene, suite_class

_MOST_POLLS = 200
_LARGEST_POSITION = 64 * 1024


def source_suite(plugin: type[Source], *, factory: Callable[[Path], SourceKit]) -> type[SourceSuite]:
    """The test class of a source. Assign it to a name that begins with `Test`."""
    made: type[SourceSuite] = suite_class(SourceSuite, plugin, factory)
    return made


@dataclass(slots=True)
class Pass:
    """What a source gave until it had no more for now: each batch with the position it started from."""

    batches: list[tuple[Position | None, SourceBatch]] = field(default_factory=list)

    @property
    def events(self) -> list[SourceEvent]:
        """All events, in order."""
        return [event for _, batch in self.batches for event in batch.events]

    @property
    def rejected(self) -> list[RejectedInput]:
        """All that became no event."""
        return [one for _, batch in self.batches for one in batch.rejected]

    @property
    def position(self) -> Position | None:
        """Where it ended."""
        return self.batches[-1][1].position if self.batches else None


class SourceSuite(PluginSuite[SourceKit]):
    """A source gives everything that happened once, and from any position exactly the rest."""

    def test_one_pass_gives_everything_in_order_and_once(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                beginning = await begun(source, kit)
                await kit.happen(kit.happenings)
                found = await passed(scene, source, beginning)
            assert numbers(kit, found) == list(range(kit.happenings))
            assert found.rejected == []

        self.perform(kit, work)

    def test_from_each_position_it_gives_exactly_the_rest(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                beginning = await begun(source, kit)
                await kit.happen(kit.happenings)
                found = await passed(scene, source, beginning)
            done = 0
            for start, batch in found.batches:
                async with scene.opened() as resumed:
                    rest = await passed(scene, resumed, stored(start))
                assert numbers(kit, rest) == list(range(done, kit.happenings)), f"from {start}"
                done += len(batch.events)

        self.perform(kit, work)

    def test_the_same_position_gives_the_same_events(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                beginning = await begun(source, kit)
                await kit.happen(kit.happenings)
                first = await passed(scene, source, beginning)
            async with scene.opened() as source:
                second = await passed(scene, source, stored(first.batches[0][0]))
            assert [(event.id, event.value, event.key) for event in first.events] == [
                (event.id, event.value, event.key) for event in second.events
            ]

        self.perform(kit, work)

    def test_what_happens_later_is_found_from_the_last_position(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                beginning = await begun(source, kit)
                await kit.happen(2)
                first = await passed(scene, source, beginning)
                await settled(source, first)
            await kit.happen(3)
            async with scene.opened() as source:
                second = await passed(scene, source, stored(first.position))
            assert numbers(kit, first) + numbers(kit, second) == list(range(5))

        self.perform(kit, work)

    def test_a_poll_that_finds_nothing_loses_nothing(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                beginning = await begun(source, kit)
                await kit.happen(2)
                first = await passed(scene, source, beginning)
                position = first.position
                for _ in range(3):
                    batch = await source.poll(split(source), stored(position))
                    assert not batch.events
                    assert batch.finished or batch.pause > 0, "a poll that finds nothing must pause"
                    position = batch.position if batch.position is not None else position
                await kit.happen(2)
                second = await passed(scene, source, stored(position))
            assert numbers(kit, first) + numbers(kit, second) == list(range(4))

        self.perform(kit, work)

    def test_positions_are_small_and_json(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                beginning = await begun(source, kit)
                await kit.happen(kit.happenings)
                found = await passed(scene, source, beginning)
            for _, batch in found.batches:
                if batch.position is not None:
                    text = json.dumps(batch.position)
                    assert json.loads(text) == batch.position
                    assert len(text) <= _LARGEST_POSITION
            assert all(batch.position is not None for _, batch in found.batches if batch.events), (
                "events without a position"
            )

        self.perform(kit, work)

    def test_committing_twice_does_no_harm(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                beginning = await begun(source, kit)
                await kit.happen(2)
                found = await passed(scene, source, beginning)
                await settled(source, found)
                await settled(source, found)
                again = await passed(scene, source, stored(found.position))
            assert numbers(kit, again) == []

        self.perform(kit, work)

    def test_bad_input_is_kept_with_its_reason_and_place_and_stops_nothing(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                beginning = await begun(source, kit)
                await kit.happen(1)
                await kit.happen_badly()
                await kit.happen(1)
                found = await passed(scene, source, beginning)
            assert numbers(kit, found) == [0, 1]
            assert len(found.rejected) == 1, f"{len(found.rejected)} rejections for one bad input"
            rejected = found.rejected[0]
            assert rejected.raw, "the raw bytes are missing"
            assert rejected.reason, "the reason is missing"
            assert rejected.place, "the place is missing"

        self.perform(kit, work)

    def test_a_disturbance_is_retriable_and_loses_nothing(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                beginning = await begun(source, kit)
                await kit.happen(kit.happenings)
                await kit.break_down()
                with pytest.raises(RetriableError) as caught:
                    await source.poll(split(source), stored(beginning))
                scene.said.say(caught.value)
                found = await passed(scene, source, beginning)
            assert numbers(kit, found) == list(range(kit.happenings))

        self.perform(kit, work)

    def test_a_wait_that_the_other_side_asks_for_is_passed_on(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                beginning = await begun(source, kit)
                await kit.happen(1)
                seconds = await kit.throttle()
                try:
                    batch = await source.poll(split(source), stored(beginning))
                    wait, events = batch.pause, list(batch.events)
                except RetriableError as error:
                    scene.said.say(error)
                    wait, events = error.after or 0.0, []
                assert not events
                assert wait >= seconds - 1, f"the wait of {seconds} s became {wait} s"

        self.perform(kit, work)

    def test_refused_credentials_stop_the_pipeline(self, kit: SourceKit) -> None:
        async def attempt(scene: Scene) -> None:
            async with scene.opened() as source:
                await source.poll(split(source), None)

        async def work(scene: Scene) -> None:
            await kit.refuse()
            with pytest.raises((FatalError, ConfigurationError)) as caught:
                await attempt(scene)
            scene.said.say(caught.value)

        self.perform(kit, work)

    def test_a_cancelled_poll_ends_and_leaves_no_task(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as source:
                await kit.happen(1)
                await kit.hang()
                await cancelled_task(source.poll(split(source), None))

        self.perform(kit, work)

    def test_it_opens_and_closes_without_a_trace(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            for _ in range(2):
                async with scene.opened():
                    pass

        self.perform(kit, work)

    def test_it_closes_though_it_was_never_opened(self, kit: SourceKit) -> None:
        async def work(scene: Scene) -> None:
            await scene.made().close()

        self.perform(kit, work)


async def begun(source: Source, kit: SourceKit) -> Position | None:
    """Where the tests begin: before everything, or where the first poll says, for a source that knows no past."""
    if not kit.begins_at_first_poll:
        return None
    batch: SourceBatch = await source.poll(split(source), None)
    assert not batch.events
    assert batch.position is not None, "the first poll must say where the source begins"
    return stored(batch.position)


def split(source: Source) -> str:
    """The split that the tests poll."""
    return source.splits()[0]


def stored(position: Position | None) -> Position | None:
    """A position as it comes back from Kafka."""
    found: Position | None = json.loads(json.dumps(position))
    return found


async def passed(scene: Scene, source: Source, position: Position | None) -> Pass:
    """Polls until the source has no more for now."""
    found = Pass()
    for _ in range(_MOST_POLLS):
        batch = await source.poll(split(source), stored(position))
        found.batches.append((position, batch))
        position = batch.position if batch.position is not None else position
        for one in batch.rejected:
            scene.said.say((one.reason, one.place))
        if batch.finished or (not batch.events and not batch.rejected and batch.pause > 0):
            return found
    raise AssertionError(f"the source gives no end after {_MOST_POLLS} polls")


async def settled(source: Source, found: Pass) -> None:
    """Tells the source that everything was acknowledged."""
    for _, batch in found.batches:
        if batch.position is not None:
            await source.committed(split(source), stored(batch.position) or {})


def numbers(kit: SourceKit, found: Pass) -> list[int]:
    """Which things the events are about."""
    return [kit.number(event) for event in found.events]
