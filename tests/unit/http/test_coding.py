"""Taking the content coding off an answer: what comes out is bounded, and so is the work."""

from __future__ import annotations

import gzip
import os
import zlib
from typing import Any

import pytest
from multidict import CIMultiDict

from trunkline.core.http import coding
from trunkline.core.http.coding import unpacked
from trunkline.core.http.faults import Answer, BadCodingError, TooLongError

EMPTY = gzip.compress(b"", mtime=0)


def answer(body: bytes, name: str = "gzip") -> Answer:
    return Answer(200, "OK", CIMultiDict({"Content-Encoding": name}), body)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("gzip", gzip.compress(b"abc", mtime=0)),
        ("x-gzip", gzip.compress(b"a", mtime=0) + b"\0" * 200_000 + gzip.compress(b"bc", mtime=0) + b"\0"),
        ("gzip", EMPTY * 500 + gzip.compress(b"abc", mtime=0)),
        ("deflate", zlib.compress(b"abc")),
        ("deflate", zlib.compress(b"abc", wbits=-15)),
        ("identity", b"abc"),
        ("zstd", b"abc"),
    ],
)
def test_an_answer_is_unpacked_and_one_of_another_coding_is_as_it_came(name: str, body: bytes) -> None:
    assert unpacked(answer(body, name), 3) == b"abc"


def test_large_answers_are_unpacked_to_their_last_byte() -> None:
    content = os.urandom(300_000) + b"\0" * 700_000
    for name, body in (("gzip", gzip.compress(content)), ("deflate", zlib.compress(content))):
        assert unpacked(answer(body, name), 1_000_000) == content
        with pytest.raises(TooLongError):
            unpacked(answer(body, name), 999_999)
        for end in (1, len(body) // 2, len(body) - 1):
            with pytest.raises(BadCodingError, match="incomplete"):
                unpacked(answer(body[:end], name), 1_000_000)


def test_more_members_than_any_real_answer_has_are_refused() -> None:
    with pytest.raises(BadCodingError, match="too many pieces"):
        unpacked(answer(EMPTY * 2_000), 1)


def test_the_bytes_behind_a_member_are_not_copied_for_each_member(monkeypatch: pytest.MonkeyPatch) -> None:
    given = 0

    class Counting:
        def __init__(self, bits: int) -> None:
            self._real = zlib.decompressobj(bits)

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal given
            given += len(data)
            return self._real.decompress(data, most)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

    class Zlib:
        decompressobj, MAX_WBITS, error = Counting, zlib.MAX_WBITS, zlib.error

    parts = [os.urandom(4_000) for _ in range(1_000)]
    body = b"".join(gzip.compress(part) for part in parts)
    monkeypatch.setattr(coding, "zlib", Zlib)
    assert unpacked(answer(body), 4_000_000) == b"".join(parts)
    assert given < len(body) + 1_000 * 2**16
