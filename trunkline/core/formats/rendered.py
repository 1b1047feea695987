"""What came of rendering a batch: the bytes, and the records that could not be written."""

from __future__ import annotations

from dataclasses import dataclass

from trunkline.core.errors import RejectedError


@dataclass(frozen=True, slots=True)
class Rendered:
    """`content` holds `rows` records; `rejected` says by index in the batch which are not among them, and why.

    A batch of which nothing could be written has no content at all, not even a header.
    """

    content: bytes
    rows: int
    rejected: dict[int, RejectedError]
