"""Conformance kits: what every plug-in must do, as test classes that pytest runs.

A plug-in's folder has a module `conformance` with a kit, which knows how to make the other side, good records and bad ones, and how to
make it fail. One line makes the tests of it: `TestMySink = sink_suite(MySink, factory=MySinkKit)`. They run by
`pytest path/to/conformance.py`, and for every installed plug-in in Trunkline's own tests. Needs pytest, and no plug-in of it.
"""

import pytest

# Before they are imported: a failing assertion then shows what it compared.
pytest.register_assert_rewrite(
    *(f"{__name__}.{name}" for name in ("plugin_suite", "push_suite", "sink_suite", "source_suite", "step_suite"))
)

from trunkline.core.testing.kits import Kit, NotApplicableError, PushSourceKit, SinkKit, SourceKit, StepCase, StepKit  # noqa: E402
from trunkline.core.testing.push_suite import PushSourceSuite, push_source_suite  # noqa: E402
from trunkline.core.testing.sink_suite import SinkSuite, sink_suite  # noqa: E402
from trunkline.core.testing.source_suite import SourceSuite, source_suite  # noqa: E402
from trunkline.core.testing.step_suite import StepSuite, step_suite  # noqa: E402

__all__ = [
    "Kit",
    "NotApplicableError",
    "PushSourceKit",
    "PushSourceSuite",
    "SinkKit",
    "SinkSuite",
    "SourceKit",
    "SourceSuite",
    "StepCase",
    "StepKit",
    "StepSuite",
    "push_source_suite",
    "sink_suite",
    "source_suite",
    "step_suite",
]
