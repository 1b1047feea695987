"""The splits that a source has."""

from __future__ import annotations

from trunkline.core.contracts import Source
from trunkline.core.errors import DefectError, TrunklineError
from trunkline.core.log import get_logger

log = get_logger(__name__)


def splits_of(source: Source) -> tuple[str, ...]:
    """The splits of a source that is open. Raises its own error, and `DefectError` (`source.broken`) for what keeps to no contract."""
    try:
        found = tuple(source.splits())
    except TrunklineError:
        raise
    except Exception as error:
        log.exception("the source raised")
        raise DefectError(
            f"its splits can't be listed: {type(error).__name__}: {error}",
            hint="this is a fault of the plug-in: see `Source.splits`",
            code="source.broken",
        ) from error
    if not all(isinstance(split, str) for split in found) or len(set(found)) != len(found):
        raise DefectError(
            f"its splits must be texts, each another, found {found!r:.200}",
            hint="this is a fault of the plug-in: see `Source.splits`",
            code="source.broken",
        )
    return found
