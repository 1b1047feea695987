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
from trunkline.core.routing import Route
from trunkline.registry.codec import Decoder, Encoder

Outputs = Sequence[tuple[str, bytes, bytes | None, Any]]
"""Topic, value, key and headers of each record to write; none where the record is filtered."""
PlainTransform = Callable[[bytes, bytes | None, Any], Outputs]
"""From the value, key and headers of a record to its outputs. Raises (anything) for a record that is not plain."""

SPARE_BYTES = 32 * 1024
"""A value this much smaller than its topic's limit fits with its key and headers."""


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
    return _compiled(read, works, routes, writes, bounds)


def _compiled(
    read: Callable[[bytes], Any],
    works: Sequence[PlainWork],
    routes: Sequence[Route],
    writes: Mapping[str, Callable[[Any], bytes]],
    bounds: Mapping[str, int],
) -> PlainTransform:
    """One function for the whole way, as Python source: a chain of closures would take longer than what they do.

    Which routes take a record is said by `choose`; this is the same for those that look at the value alone.
    """
    known: dict[str, Any] = {"read": read, "Unusual": UnusualError}
    lines = ["def process(raw, key, headers):", "    value = read(raw)"]
    for number, work in enumerate(works):
        known[f"run{number}"] = work.run
        call = f"run{number}(value, None)"
        lines.append(f"    {call}" if work.changes else f"    if {call} is not True: return ()")
    if len(routes) == 1 and routes[0].when is None and not routes[0].otherwise:
        lines += [*_written(0, routes[0], writes, bounds, known, "    "), f"    return ({_output(0, routes[0])},)"]
    else:
        lines += ["    outputs = []", "    matched = False"]
        for number, route in sorted(enumerate(routes), key=lambda one: one[1].otherwise):
            condition = "if not matched" if route.otherwise else "if True"
            if route.when is not None:
                known[f"when{number}"] = route.when
                condition = f"if when{number}(value, None) is True"
            lines.append(f"    {condition}:")
            lines += _written(number, route, writes, bounds, known, "        ")
            lines.append(f"        outputs.append({_output(number, route)})")
            if route.when is not None:
                lines.append("        matched = True")
        lines.append("    return outputs")
    exec(compile("\n".join(lines), "<plain stream>", "exec"), known)  # noqa: S102 (the text is ours, with numbers alone put in)
    process: PlainTransform = known["process"]
    return process


def _written(
    number: int,
    route: Route,
    writes: Mapping[str, Callable[[Any], bytes]],
    bounds: Mapping[str, int],
    known: dict[str, Any],
    indent: str,
) -> list[str]:
    """The lines that make a target's value, or leave a record that may not fit to the long way."""
    known |= {f"topic{number}": route.topic, f"bound{number}": bounds[route.topic], f"key_of{number}": route.key_of}
    if route.topic in writes:
        known[f"write{number}"] = writes[route.topic]
    made = f"write{number}(value)" if route.topic in writes else "raw"
    return [f"{indent}out = {made}", f"{indent}if len(out) > bound{number}: raise Unusual"]


def _output(number: int, route: Route) -> str:
    """The expression of a target's output."""
    key = "key" if route.key is None else f"key_of{number}(value, None, key)"
    return f"(topic{number}, out, {key}, headers)"
