"""What the unit tests share."""

from __future__ import annotations

import pytest

from trunkline.core import redaction


@pytest.fixture(autouse=True)
def _no_secrets_of_other_tests() -> None:
    """A process knows its secrets for life; a test would have those of all before it blanked in its messages."""
    redaction._REDACTOR.__init__()  # type: ignore[misc]
