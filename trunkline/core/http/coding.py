"""Content codings (RFC 9110, section 8.4): taken off with a bound on what comes out."""

from __future__ import annotations

import zlib

from trunkline.core.http.faults import Answer, BadCodingError, TooLongError

_GZIP = 16 + zlib.MAX_WBITS
_PIECE = 2**16


def unpacked(answer: Answer, limit: int) -> bytes:
    """The body without its gzip or deflate coding, at most `limit` bytes; with any other coding as it is.

    Raises `BadCodingError`, `TooLongError`.
    """
    coding, body = answer.headers.get("Content-Encoding", "").strip().lower(), answer.body
    if coding not in ("gzip", "x-gzip", "deflate") or not body:
        return body
    pieces: list[bytes] = []
    size = 0
    try:
        while body:
            # Some send deflate without its zlib header (RFC 9110, section 8.4.1.2): the first byte tells.
            bits = _GZIP if coding != "deflate" else zlib.MAX_WBITS if body[0] & 0xF == 8 else -zlib.MAX_WBITS
            unpack = zlib.decompressobj(bits)
            while not unpack.eof:
                piece = unpack.decompress(body, _PIECE)
                body = unpack.unconsumed_tail
                size += len(piece)
                if size > limit:
                    raise TooLongError(answer.status)
                pieces.append(piece)
                if not piece and not body and not unpack.eof:
                    raise BadCodingError("incomplete")
            body = unpack.unused_data.lstrip(b"\0") if coding != "deflate" else b""
    except zlib.error:
        raise BadCodingError("badly encoded") from None
    return b"".join(pieces)
