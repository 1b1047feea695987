"""What every sink must do."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from trunkline.core.contracts import Batch, Sink
from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.errors import ConfigurationError, FatalError
from trunkline.core.event import Event
from trunkline.core.testing.kits import NotApplicableError, SinkKit
from trunkline.core.testing.observation import cancelled_task
from trunkline.core.testing.plugin_suite import PluginSuite, Scene, suite_class
from trunkline.core.uses import Use, check_use
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict


def sink_suite(plugin: type[Sink], *, factory: Callable[[Path], SinkKit]) -> type[SinkSuite]:
    """The test class of a sink. Assign it to a name that begins with `Test`."""
    made: type[SinkSuite] = suite_class(SinkSuite, plugin, factory)
    return made


class SinkSuite(PluginSuite[SinkKit]):
    """A sink gives one verdict for each record, and the verdict is true."""

    def test_it_gives_one_verdict_for_each_record_and_delivers_those_it_calls_ok(self, kit: SinkKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as sink:
                for batch in batches(sink, kit, range(5)):
                    await delivered(scene, sink, batch)
            assert sorted(await kit.arrived()) == list(range(5))

        self.perform(kit, work)

    def test_a_bad_record_is_dead_and_its_neighbours_are_delivered(self, kit: SinkKit) -> None:
        async def work(scene: Scene) -> None:
            good, bad = [event_of(kit.value(n), n) for n in range(2)], event_of(kit.bad_value(), 7)
            async with scene.opened() as sink:
                together = sink.promises.max_batch > 2
                wanted = [[good[0], bad, good[1]]] if together else [[one] for one in (good[0], bad, good[1])]
                verdicts: list[Verdict] = []
                for number, events in enumerate(wanted):
                    verdicts += await answered(scene, sink, Batch(events, name=f"conformance-{number}"))
            assert isinstance(verdicts[1], Dead), verdicts[1]
            assert verdicts[1].reason
            assert all(isinstance(verdicts[index], Ok) for index in (0, 2)), verdicts
            assert sorted(await kit.arrived()) == [0, 1]

        self.perform(kit, work)

    def test_a_record_that_is_delivered_again_has_one_effect_where_the_sink_promises_it(self, kit: SinkKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as sink:
                if not sink.promises.idempotent:
                    raise NotApplicableError("the sink does not promise it")
                for batch in batches(sink, kit, range(3)):
                    await delivered(scene, sink, batch)
            # A sink that was started anew knows nothing of what it did.
            async with scene.opened() as again:
                for batch in batches(again, kit, range(3), attempt=2):
                    await delivered(scene, again, batch)
            assert sorted(await kit.arrived()) == [0, 1, 2]

        self.perform(kit, work)

    def test_a_disturbance_is_no_verdict_on_the_record_which_a_second_attempt_delivers(self, kit: SinkKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as sink:
                await kit.break_down()
                [batch] = batches(sink, kit, range(1))
                [first] = await answered(scene, sink, batch)
                assert isinstance(first, (Retry, Unknown)), first
                assert first.reason
                if isinstance(first, Retry):
                    assert await kit.arrived() == [], "`Retry` says that the record had no effect"
                await delivered(scene, sink, Batch(batch.events, name=batch.name, attempt=2))
            assert set(await kit.arrived()) == {0}

        self.perform(kit, work)

    def test_a_wait_that_the_other_side_asks_for_is_passed_on(self, kit: SinkKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as sink:
                seconds = await kit.throttle()
                [batch] = batches(sink, kit, range(1))
                [first] = await answered(scene, sink, batch)
                assert isinstance(first, Retry), first
                assert first.after is not None, "the wait is not passed on"
                assert seconds - 1 <= first.after <= seconds + 1, f"{seconds} s became {first.after} s"
                assert await kit.arrived() == []

        self.perform(kit, work)

    def test_refused_credentials_stop_the_pipeline_and_blame_no_record(self, kit: SinkKit) -> None:
        async def attempt(scene: Scene) -> None:
            async with scene.opened() as sink:
                [batch] = batches(sink, kit, range(1))
                scene.said.say(await sink.write(batch))

        async def work(scene: Scene) -> None:
            await kit.refuse()
            with pytest.raises((FatalError, ConfigurationError)) as caught:
                await attempt(scene)
            scene.said.say(caught.value)
            assert await kit.arrived() == []

        self.perform(kit, work)

    def test_credentials_that_are_refused_later_stop_the_pipeline_too(self, kit: SinkKit) -> None:
        async def attempt(scene: Scene) -> None:
            async with scene.opened() as sink:
                await kit.refuse()
                for number in range(1, 4):
                    # A line that was cut may hide the refusal from the first attempt.
                    [batch] = batches(sink, kit, range(1), attempt=number)
                    [verdict] = await answered(scene, sink, batch)
                    assert isinstance(verdict, (Retry, Unknown)), verdict

        async def work(scene: Scene) -> None:
            with pytest.raises((FatalError, ConfigurationError)) as caught:
                await attempt(scene)
            scene.said.say(caught.value)
            assert await kit.arrived() == []

        self.perform(kit, work)

    def test_a_cancelled_write_ends_and_leaves_no_task(self, kit: SinkKit) -> None:
        async def work(scene: Scene) -> None:
            async with scene.opened() as sink:
                await kit.hang()
                [batch] = batches(sink, kit, range(1))
                await cancelled_task(sink.write(batch))

        self.perform(kit, work)

    def test_a_field_that_events_lack_is_found_before_anything_runs(self, kit: SinkKit) -> None:
        """What the settings name of an event is among the sink's `uses`, so that `validate` finds a misspelt name."""

        async def work(scene: Scene) -> None:
            value = kit.value(0)
            if not isinstance(value, dict) or not any(name in json.dumps(kit.config) for name in value):
                raise NotApplicableError("the settings name no field of an event")
            sink = scene.made()
            for use in sink.uses():
                check_use(use, {"records": schema_of_value(value)})
            misspelt = schema_of_value({f"{name}_": one for name, one in value.items()})
            error = next(filter(None, (refusal(use, misspelt) for use in sink.uses())), None)
            assert error is not None, "no use names what the settings name"
            scene.said.say(error)
            assert any(name in error.message for name in value), f"{error} does not name the field"
            assert (error.where or "").startswith("config."), f"{error} does not say where"

        self.perform(kit, work)

    def test_it_opens_and_closes_without_a_trace(self, kit: SinkKit) -> None:
        async def work(scene: Scene) -> None:
            for _ in range(2):
                async with scene.opened():
                    pass
            assert await kit.arrived() == []

        self.perform(kit, work)

    def test_it_closes_though_it_was_never_opened(self, kit: SinkKit) -> None:
        async def work(scene: Scene) -> None:
            await scene.made().close()

        self.perform(kit, work)

    def test_it_promises_a_batch_of_at_least_one(self) -> None:
        """The engine reads the promises before anything else."""
        assert issubclass(self.plugin, Sink)
        assert self.plugin.promises.max_batch >= 1
        assert not self.plugin.promises.contiguous or self.plugin.promises.max_batch > 1


def refusal(use: Use, schema: Any) -> ConfigurationError | None:
    """What is said of a use for records of a schema; None where it is good."""
    try:
        check_use(use, {"records": schema})
    except ConfigurationError as error:
        return error
    return None


def schema_of_value(value: dict[str, Any]) -> dict[str, Any]:
    """An Avro schema of which a flat record is a value; fields of other types than JSON's scalars are strings."""
    kinds = {bool: "boolean", int: "long", float: "double"}
    fields = [{"name": name, "type": kinds.get(type(one), "string")} for name, one in value.items()]
    return {"type": "record", "name": "Record", "fields": fields}


def event_of(value: Any, number: int) -> Event:
    """A record as the engine gives it: the envelope in its headers, a key, a place, an idempotency key."""
    envelope = Envelope(
        id=f"conformance-{number}",
        source="/conformance",
        type="conformance.record",
        correlation_id=f"conformance-correlation-{number}",
    )
    event = Event(
        value,
        raw=b"",
        raw_key=str(number).encode(),
        headers=envelope_to_headers(envelope),
        topic="conformance.records",
        topic_id="conformance",
        offset=number,
        timestamp=1_700_000_000_000 + number,
    )
    event.idempotency_key = f"conformance-idempotency-{number}"
    return event


def batches(sink: Sink, kit: SinkKit, numbers: Sequence[int], *, attempt: int = 1) -> list[Batch]:
    """The records of these numbers in batches as large as the sink takes."""
    size = min(sink.promises.max_batch, 3)
    return [
        Batch(
            [event_of(kit.value(number), number) for number in numbers[start : start + size]],
            name=f"conformance-{numbers[start]}",
            attempt=attempt,
        )
        for start in range(0, len(numbers), size)
    ]


async def answered(scene: Scene, sink: Sink, batch: Batch) -> Sequence[Verdict]:
    """The verdicts as the engine takes them: an exception that stops nothing is `Unknown` for every record."""
    try:
        verdicts = await sink.write(batch)
    except (FatalError, ConfigurationError):
        raise
    except Exception as error:  # noqa: BLE001 (the contract says so)
        scene.said.say(error)
        return [Unknown(str(error)) for _ in batch.events]
    for verdict in verdicts:
        scene.said.say(verdict)
    assert len(verdicts) == len(batch.events), f"{len(verdicts)} verdicts for {len(batch.events)} records"
    assert all(isinstance(verdict, (Ok, Retry, Dead, Unknown)) for verdict in verdicts)
    return verdicts


async def delivered(scene: Scene, sink: Sink, batch: Batch) -> None:
    """Writes, and expects that everything is delivered."""
    verdicts = await answered(scene, sink, batch)
    assert all(isinstance(verdict, Ok) for verdict in verdicts), verdicts
