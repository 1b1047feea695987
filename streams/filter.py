"""The `filter` step: keeps the events for which a condition holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from trunkline.core.contracts import Step, StepContext
from trunkline.core.event import Event
from trunkline.core.expressions import BOOL, compile_expression
from trunkline.core.plain import PlainWork, Reads, reads_of
from trunkline.core.settings import Settings, setting


class FilterSettings(Settings):
    """What is kept."""

    when: str = setting(
        description="A CEL expression; events for which it is true go on, all others are filtered (and counted).",
        examples=["event.dep_delay != null && event.dep_delay >= 15"],
        min_length=1,
    )


class FilterStep(Step):
    """Lets an event go on unchanged, or filters it. An expression that fails rejects the record."""

    settings_type = FilterSettings
    summary: ClassVar[str] = "Keeps the events for which a condition holds."
    shorthand: ClassVar[str | None] = "when"
    changes: ClassVar[bool] = False

    settings: FilterSettings
    _holds: Callable[[Any, Any], Any]
    _reads: Reads

    def prepare(self, context: StepContext) -> Any | None:
        condition = compile_expression(
            self.settings.when, schema=context.schema, expect=BOOL, where=f"{context.where}.when"
        )
        self._holds, self._reads = condition.fn, reads_of([condition])
        return context.schema

    def process(self, event: Event) -> Event | None:
        return event if self._holds(event.value, event) is True else None

    def plain(self) -> PlainWork | None:
        return PlainWork(self._holds, changes=False, reads=self._reads)
