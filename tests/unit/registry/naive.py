"""Whether one schema can read what another one wrote, as the specification says it: every pair of types looked at wherever it occurs.

It takes exponential work where types are shared, and so it judges small schemas only: those by which the fast way is checked.
"""

from __future__ import annotations

from trunkline.registry.matching import PROMOTIONS, field_of_writer, logical_conflict, names_match
from trunkline.registry.model import AvroType


def can_read(reader: AvroType, writer: AvroType, above: frozenset[tuple[int, int]] = frozenset()) -> bool:
    pair = (id(reader), id(writer))
    if pair in above:
        return True
    above = above | {pair}
    if writer.kind == "union":
        return all(can_read(reader, branch, above) for branch in writer.branches)
    if reader.kind == "union":
        return any(can_read(branch, writer, above) for branch in reader.branches)
    if reader.kind != writer.kind:
        return reader.kind in PROMOTIONS.get(writer.kind, ())
    if reader.kind in {"array", "map"}:
        return can_read(reader.element, writer.element, above)
    if reader.name and not names_match(reader, writer):
        return False
    if reader.kind == "record":
        for field in reader.fields:
            source = field_of_writer(field, writer)
            if not (field.has_default if source is None else can_read(field.type, source.type, above)):
                return False
        return True
    if reader.kind == "enum":
        return reader.symbol_default is not None or set(writer.symbols) <= set(reader.symbols)
    return reader.size == writer.size and not logical_conflict(reader, writer)
