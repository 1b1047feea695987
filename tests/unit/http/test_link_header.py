"""The `Link` header and the statuses, read without a server."""

from __future__ import annotations

import pytest

from connectors.http_poll.paging import next_link
from trunkline.core.errors import FatalError
from trunkline.core.http import classify_status
from trunkline.core.verdicts import Dead, Ok, Retry


@pytest.mark.parametrize(
    ("header", "target"),
    [
        ('<https://a/?p=2>; rel="next"', "https://a/?p=2"),
        ("</x?p=2>;rel=next", "/x?p=2"),
        ('<a>; rel="prev", <b>; rel="next", <c>; rel="last"', "b"),
        ('<a,b;c>; rel="next"', "a,b;c"),
        ('<a>; title="x, rel=next"; rel="prev", <b>; REL="NEXT"', "b"),
        ('<a>; rel="prev next"', "a"),
        ('<a>; rel="nextish"', None),
        ("", None),
        ("garbage", None),
        ("<a>", None),
        ('<a>; rel="next', None),
    ],
)
def test_the_next_link_is_found_by_its_relation(header: str, target: str | None) -> None:
    assert next_link(header) == target


@pytest.mark.timeout(5)
def test_a_hostile_link_header_takes_no_time() -> None:
    for header in ("<" * 8000, '<a>; x="' + "\\" * 8000, "<a>;" * 2000, "<a>; a=b" * 1000, "<a>" + "; a" * 2700):
        assert next_link(header) is None


def test_every_status_has_a_class() -> None:
    for status in range(100, 600):
        if status == 401:
            with pytest.raises(FatalError):
                classify_status(status, "why")
            continue
        verdict = classify_status(status, "why", 3.0)
        assert isinstance(verdict, Ok | Dead | Retry)
        assert isinstance(verdict, Ok) == (200 <= status < 300)
        if status >= 500 or status == 429:
            assert verdict == Retry("why", after=3.0)
