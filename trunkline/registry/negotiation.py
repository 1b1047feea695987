"""The media types that the registry speaks: what a request's `Content-Type` may be, and what answers an `Accept`.

Source: the types and weights that Confluent's registry declares for its resources, and the order of JAX-RS 2.1, section 3.8, by which it
chooses: the client's weight first, then its own. https://docs.confluent.io/platform/current/schema-registry/develop/api.html#content-types
"""

from __future__ import annotations

import re
from typing import Final

from trunkline.registry.errors import RegistryError

V1_JSON: Final = "application/vnd.schemaregistry.v1+json"
_OFFERED: Final = {V1_JSON: 1.0, "application/vnd.schemaregistry+json": 0.9, "application/json": 0.5}
"""What answers are given in, with the registry's own weight."""
_TAKEN: Final = frozenset({*_OFFERED, "application/octet-stream"})
"""What bodies are taken in. Octets are what a body without a type is."""
_RANGE: Final = re.compile(r"([\w!#$&^.+*-]+)/([\w!#$&^.+*-]+)")
_WEIGHT: Final = re.compile(r";\s*q\s*=\s*([0-9.]+)", re.IGNORECASE)


def require_content_type(header: str | None) -> None:
    """Raises RegistryError 415 for a body in a type that is not taken: a page elsewhere may send `text/plain` without asking."""
    if header is not None and header.partition(";")[0].strip().lower() not in _TAKEN:
        raise RegistryError(415, "HTTP 415 Unsupported Media Type")


def answer_type(header: str | None) -> str:
    """The type of the answer to a request with this `Accept`. Raises RegistryError 406 where none is accepted."""
    if header is None or not header.strip():
        return V1_JSON
    weights: dict[str, float] = {}
    for part in header.split(","):
        media, weight = _accepted(part)
        weights[media] = max(weight, weights.get(media, 0.0))
    chosen, best = "", (0.0, 0.0)
    for offered, own in _OFFERED.items():
        if weights.get(offered) == 0.0:
            continue  # refused by its name
        found = max(weights.get(media, 0.0) for media in (offered, "application/*", "*/*"))
        if found > 0.0 and (found, own) > best:
            chosen, best = offered, (found, own)
    if not chosen:
        raise RegistryError(406, "HTTP 406 Not Acceptable")
    return chosen


def _accepted(part: str) -> tuple[str, float]:
    """A range of media types, and the client's weight."""
    media = part.partition(";")[0].strip().lower()
    found = _WEIGHT.search(part)
    try:
        weight = min(float(found[1]), 1.0) if found is not None else 1.0
    except ValueError:
        weight = 0.0
    # Java's own client writes a lone star.
    return ("*/*" if media == "*" else media) if media == "*" or _RANGE.fullmatch(media) else "", weight
