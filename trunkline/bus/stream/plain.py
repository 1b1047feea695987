"""Plain records: what a stream does with most of them, as one function from bytes to outputs, without an `Event`.

A stream whose steps and targets look at nothing but the value is compiled, for each schema that its input is written with, to
a chain of read, steps, routes, write. Where nothing changes the value, only the fields that expressions name are read, and the
bytes pass as they are. Whatever is unusual raises, and the record is done again by `Transform`, which decides what becomes of it:
nothing here judges an error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from trunkline.core.plain import WHOLE_EVENT, Extent, PlainWork, together
from trunkline.core.routing import Route, choose
from trunkline.registry.codec import Decoder, Encoder

Outputs = Sequence[tuple[str, bytes, bytes | None, Any]]
"""Topic, value, key and headers of each record to write; none where the record is filtered."""
PlainTransform = Callable[[bytes, bytes | None, Any], Outputs]
"""From the value, key and headers of a record to its outputs. Raises (anything) for a record that is not plain."""

SPARE_BYTES = 32 * 1024
"""A value this much smaller than its topic's limit fits with its key and headers."""
_FILTERED: Outputs = ()


class UnusualError(Exception):
    """This record takes the long way."""


def compile_plain(
    value: bytes,
    decoder: Decoder,
    works: Sequence[PlainWork],
    routes: Sequence[Route],
    encoder_of: Callable[[str], Encoder | None],
    limits: Mapping[str, int],
) -> PlainTransform | None:
    """The function for records written with the schema of this one; None where it takes an `Event` to process them.

    Raises what the decoder raises for a value without a known schema.
    """
    changes = any(work.changes for work in works)
    reads = together([*(work.reads for work in works), *(route.reads for route in routes)])
    if reads is WHOLE_EVENT or any(route.name is not None for route in routes):
        return None
    schema = decoder.schema_of(value)
    encoders = {route.topic: encoder_of(route.topic) for route in routes}
    # A value that no step changed passes as it is where the schema stays the same, or the topic has none.
    copied = not changes and all(one is None or one.schema.id == schema.id for one in encoders.values())
    if not copied and None in encoders.values():
        return None
    read = decoder.plain_reader(value, reads if copied and not isinstance(reads, Extent) else None)
    if read is None:
        return None
    writes = {topic: one.encode for topic, one in encoders.items() if one is not None and not copied}
    bounds = {topic: limits.get(topic, 1_000_000) - SPARE_BYTES for topic in encoders}
    return _chained(read, works, _ending(routes, writes, bounds))


_Ending = Callable[[Any, bytes, bytes | None, Any], Outputs]


def _chained(read: Callable[[bytes], Any], works: Sequence[PlainWork], end: _Ending) -> PlainTransform:
    steps = [(work.run, work.changes) for work in works]

    def process(raw: bytes, key: bytes | None, headers: Any) -> Outputs:
        value = read(raw)
        for run, changes in steps:
            if run(value, None) is not True and not changes:
                return _FILTERED
        return end(value, raw, key, headers)

    return process


def _ending(
    routes: Sequence[Route], writes: Mapping[str, Callable[[Any], bytes]], bounds: Mapping[str, int]
) -> _Ending:
    """The targets and what is written to them."""
    only = routes[0] if len(routes) == 1 else None
    if only is not None and only.when is None and not only.otherwise and only.key is None:
        topic, bound, write = only.topic, bounds[only.topic], writes.get(only.topic)

        def to_one(value: Any, raw: bytes, key: bytes | None, headers: Any) -> Outputs:
            out = raw if write is None else write(value)
            if len(out) > bound:
                raise UnusualError
            return ((topic, out, key, headers),)

        return to_one

    def to_chosen(value: Any, raw: bytes, key: bytes | None, headers: Any) -> Outputs:
        outputs = []
        for route in choose(routes, value, None):
            topic = route.topic
            out = writes[topic](value) if topic in writes else raw
            if len(out) > bounds[topic]:
                raise UnusualError
            outputs.append((topic, out, route.key_of(value, None, key), headers))
        return outputs

    return to_chosen
