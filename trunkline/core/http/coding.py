"""Content codings (RFC 9110, section 8.4): taken off with a bound on what comes out."""

from __future__ import annotations

import zlib

from trunkline.core.http.faults import Answer, BadCodingError, TooLongError

_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 2**16
_MOST_MEMBERS = 1024
"""Of one answer. Real ones have one or a few, and an empty one is twenty bytes that cost as much as any other."""


def unpacked(answer: Answer, limit: int) -> bytes:
    """The body without its gzip or deflate coding, at most `limit` bytes; with any other coding as it is.

    Raises `BadCodingError`, `TooLongError`.
    """
    coding, body = answer.headers.get("Content-Encoding", "").strip().lower(), answer.body
    if coding not in ("gzip", "x-gzip", "deflate") or not body:
        return body
    pieces: list[bytes] = []
    size = place = members = 0
    try:
        while place < len(body):
            members += 1
            if members > _MOST_MEMBERS:
                raise BadCodingError("packed in too many pieces")
            # Some send deflate without its zlib header (RFC 9110, section 8.4.1.2): the first byte tells.
            bits = _GZIP if coding != "deflate" else zlib.MAX_WBITS if body[0] & 0xF == 8 else -zlib.MAX_WBITS
            unpack = zlib.decompressobj(bits)
            while not unpack.eof:
                # zlib copies what it was given and did not use: with all of the body at each member, that is quadratic.
                given = body[place : place + _PIECE]
                piece = unpack.decompress(given, _PIECE)
                place += len(given) - len(unpack.unconsumed_tail) - len(unpack.unused_data)
                size += len(piece)
                if size > limit:
                    raise TooLongError(answer.status)
                pieces.append(piece)
                if not piece and not given and not unpack.eof:
                    raise BadCodingError("incomplete")
            place = _behind_zeros(body, place) if coding != "deflate" else len(body)
    except zlib.error:
        raise BadCodingError("badly encoded") from None
    return b"".join(pieces)


def _behind_zeros(body: bytes, place: int) -> int:
    """Members may be padded with zeros (gzip manual, "Tapes")."""
    while place < len(body):
        given = body[place : place + _PIECE]
        rest = given.lstrip(b"\0")
        place += len(given) - len(rest)
        if rest:
            break
    return place
