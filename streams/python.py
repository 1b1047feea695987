"""The `python` step: a function of one's own.

The function gets the value as a dict (and, where it has a second parameter, the event) and returns what goes on: a dict, a list of
dicts (one event each, with ids as `split` gives them), or None to filter. It may change and return the dict it got. It runs
on the stream's own thread for every record, so it must be quick, do no input or output, and give the same result for the same
event: a replay calls it again. What it raises rejects the record. It is code: it may do whatever the worker may. So a check of
manifests reads it and does not run it, unless whoever checks says that it is trusted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from streams.avro_file import schema_of, with_schema_in_place
from streams.parts import parts_of
from streams.python_code import import_function, read_function
from trunkline.core.avro.assignment import settled
from trunkline.core.avro.records import RecordSchema
from trunkline.core.contracts import Step, StepContext
from trunkline.core.errors import RejectedError
from trunkline.core.event import Event
from trunkline.core.settings import Settings, setting


class PythonSettings(Settings):
    """Which function is called. `python: module:function` is short for `python: {call: module:function}`."""

    call: str = setting(
        description="The function as `module:function`. The module is a file beside the manifest, or installed.",
        examples=["pricing:with_discount"],
        pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$",
    )
    schema_: str | dict[str, Any] | None = Field(
        None,
        alias="schema",
        description="The Avro schema of what the function returns: an .avsc file (a relative path starts at the manifest's folder), or "
        "the schema itself. Without it, later steps know nothing of the fields.",
        examples=["schemas/priced_order.avsc"],
    )


class PythonStep(Step):
    """Calls a function for each event."""

    settings_type = PythonSettings
    summary: ClassVar[str] = "Calls a Python function of your own for each event."
    shorthand: ClassVar[str | None] = "call"

    settings: PythonSettings
    _call: Callable[[Event], Any]

    @classmethod
    def without_files(cls, raw: Any, folder: Path) -> Any:
        return with_schema_in_place(raw, folder)

    def prepare(self, context: StepContext) -> Any | None:
        if context.run_code:
            function, wants_event = import_function(self.settings.call, context)
            self._call = (
                (lambda event: function(event.value, event)) if wants_event else (lambda event: function(event.value))
            )
        else:
            read_function(self.settings.call, context)
        declared = self.settings.schema_
        if declared is None:
            return context.target
        return settled(RecordSchema(schema_of(declared, context, "schema"), f"{context.where}.schema"), context)

    @property
    def own_code(self) -> str:
        return str(self.settings.call)

    def process(self, event: Event) -> Event | list[Event] | None:
        result = self._call(event)
        if result is None:
            return None
        if isinstance(result, dict):
            event.value = result
            event.changed = True
            return event
        if isinstance(result, list) and all(isinstance(one, dict) for one in result):
            return parts_of(event, _each_its_own(result)) if result else None
        found = type(result).__name__
        raise RejectedError(
            f"{self.settings.call} returned {found}",
            hint="a dict, a list of dicts or None is expected",
            code="python.result",
        )


def _each_its_own(values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The values, none of them twice the same object: later steps change each in place."""
    return values if len({id(value) for value in values}) == len(values) else [copy.deepcopy(one) for one in values]
