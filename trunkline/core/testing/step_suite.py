"""What every step must do."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fastavro
import pytest
from fastavro.validation import validate

from trunkline.core.contracts import Step, StepContext
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.plain import Extent
from trunkline.core.testing.kits import NotApplicableError, StepCase, StepKit
from trunkline.core.testing.observation import Transcript, environment, transcript
from trunkline.core.testing.plugin_suite import PluginSuite, skipping, suite_class
from trunkline.core.testing.sink_suite import event_of

WHERE = "conformance.yaml:1: spec.steps[0]"


def step_suite(plugin: type[Step], *, factory: Callable[[Path], StepKit]) -> type[StepSuite]:
    """The test class of a step. Assign it to a name that begins with `Test`."""
    made: type[StepSuite] = suite_class(StepSuite, plugin, factory)
    return made


class StepSuite(PluginSuite[StepKit]):
    """A step does what its examples say, the same each time, and says before it runs what it will give."""

    def test_each_example_gives_what_it_should(self, kit: StepKit) -> None:
        with self._stage(kit) as said:
            assert any(case.rejects is None for case in kit.cases), "no example succeeds"
            for case in kit.cases:
                step, _ = self._prepared(kit, case)
                event = event_of(copy.deepcopy(case.value), 0)
                if case.rejects is None:
                    assert values(step.process(event)) == case.expected, case.config
                    continue
                with pytest.raises(RejectedError) as caught:
                    step.process(event)
                said.say(caught.value)
                assert case.rejects in str(caught.value)

    def test_what_comes_out_fits_the_schema_it_announced(self, kit: StepKit) -> None:
        with self._stage(kit):
            announced = 0
            for case in kit.cases:
                if case.rejects is None:
                    step, schema = self._prepared(kit, case)
                    result = step.process(event_of(copy.deepcopy(case.value), 0))
                    if schema is not None:
                        announced += 1
                        parsed = fastavro.parse_schema(copy.deepcopy(schema), _force=True)
                        for event in events(result):
                            validate(event.value, parsed, strict=case.target is None)
            assert announced, "no example announces a schema"

    def test_a_replay_gives_the_same_events(self, kit: StepKit) -> None:
        with self._stage(kit):
            for case in kit.cases:
                if case.rejects is None:
                    seen = []
                    for _ in range(2):
                        step, _schema = self._prepared(kit, case)
                        result = step.process(event_of(copy.deepcopy(case.value), 0))
                        seen.append([(event.value, event.headers, event.raw_key) for event in events(result)])
                    assert seen[0] == seen[1], case.config

    def test_an_event_is_marked_as_changed_exactly_where_it_may_have_changed(self, kit: StepKit) -> None:
        with self._stage(kit):
            for case in kit.cases:
                if case.rejects is None:
                    step, _ = self._prepared(kit, case)
                    for event in events(step.process(event_of(copy.deepcopy(case.value), 0))):
                        assert event.changed or event.value == case.value, case.config

    def test_the_plain_form_does_what_the_step_does(self, kit: StepKit) -> None:
        with self._stage(kit):
            plain = 0
            for case in kit.cases:
                step, _ = self._prepared(kit, case)
                work = step.plain()
                if work is None:
                    continue
                plain += 1
                value = copy.deepcopy(case.value)
                if case.rejects is not None:
                    with pytest.raises(RejectedError):
                        work.run(value, None)
                    continue
                goes_on = work.run(value, None) is True or work.changes
                assert ([value] if goes_on else None) == (None if case.expected is None else [case.expected]), (
                    case.config
                )
                assert work.changes or value == case.value, case.config
                if not isinstance(work.reads, Extent):
                    seen = {name: case.value[name] for name in work.reads if name in case.value}
                    assert (work.run(seen, None) is True) == goes_on, "it looks at more than it says"
            if not plain:
                raise NotApplicableError("the step has no plain form")

    def test_headers_are_replaced_and_never_changed(self, kit: StepKit) -> None:
        with self._stage(kit):
            for case in kit.cases:
                step, _ = self._prepared(kit, case)
                event = event_of(copy.deepcopy(case.value), 0)
                headers, before = event.headers, list(event.headers)
                try:
                    found = events(step.process(event))
                except RejectedError:
                    found = []
                assert headers == before, case.config
                assert all(one.correlation_id == event.correlation_id for one in found), "the correlation id is lost"

    def test_the_parts_of_an_event_have_ids_of_their_own_and_share_nothing(self, kit: StepKit) -> None:
        with self._stage(kit):
            whole = [case for case in kit.cases if case.rejects is None and isinstance(case.expected, list)]
            if not whole:
                raise NotApplicableError("the step gives one event at the most")
            for case in whole:
                step, _ = self._prepared(kit, case)
                parts = events(step.process(event_of(copy.deepcopy(case.value), 0)))
                ids = [part.envelope.id for part in parts]
                assert len(set(ids)) == len(ids)
                assert all(part.envelope.causation_id for part in parts)
                assert all(part.changed for part in parts)
                shared = [found for part in parts for found in containers(part.value)]
                assert len({id(found) for found in shared}) == len(shared), "two parts share a list or a record"

    def test_preparing_changes_no_schema_and_can_be_repeated(self, kit: StepKit) -> None:
        with self._stage(kit):
            for case in kit.cases:
                schema, target = copy.deepcopy(case.schema), copy.deepcopy(case.target)
                step, first = self._prepared(kit, case)
                second = step.prepare(self._context(kit, case))
                assert first == second
                assert (case.schema, case.target) == (schema, target)

    def test_an_unknown_field_is_found_before_anything_runs(self, kit: StepKit) -> None:
        with self._stage(kit) as said:
            config, schema, right = kit.misspelt
            with pytest.raises(ConfigurationError) as caught:
                self._prepared(kit, StepCase(config, schema, None))
            said.say(caught.value)
            assert right in str(caught.value), f"{caught.value} does not name {right!r}"
            assert WHERE in str(caught.value), f"{caught.value} does not say where"

    @contextmanager
    def _stage(self, kit: StepKit) -> Iterator[Transcript]:
        with transcript() as said, skipping():
            asyncio.run(kit.start())
            try:
                with environment(dict(kit.environment)):
                    yield said
            finally:
                asyncio.run(kit.stop())
        assert said.leaks(kit.secrets) == []

    def _prepared(self, kit: StepKit, case: StepCase) -> tuple[Step, Any]:
        plugin = self.plugin
        assert issubclass(plugin, Step)
        step = plugin(plugin.parse(case.config))
        return step, step.prepare(self._context(kit, case))

    def _context(self, kit: StepKit, case: StepCase) -> StepContext:
        return StepContext("conformance-pipeline", case.schema, WHERE, case.target, kit.folder)


def events(result: Event | list[Event] | None) -> list[Event]:
    """What came out, as a list."""
    if result is None:
        return []
    return result if isinstance(result, list) else [result]


def values(result: Event | list[Event] | None) -> Any:
    """The values that came out, in the shape of `StepCase.expected`."""
    if isinstance(result, list):
        return [event.value for event in result]
    return None if result is None else result.value


def containers(value: Any) -> Iterator[Any]:
    """All records and lists within a value, itself included."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from containers(inner)
    elif isinstance(value, list):
        yield value
        for inner in value:
            yield from containers(inner)
