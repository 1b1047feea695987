"""Walks over the graph of a schema's types, which may have cycles."""

from __future__ import annotations

from collections.abc import Iterator

from trunkline.registry.model import AvroType


def walk(root: AvroType) -> Iterator[AvroType]:
    """Every type of the graph once."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        waiting.extend(node.branches)
        waiting.extend(each.type for each in node.fields)
        if node.items is not None:
            waiting.append(node.items)


def is_recursive(root: AvroType) -> bool:
    """Whether some record holds itself, directly or through others."""
    done: set[int] = set()
    path: set[int] = set()

    def visit(node: AvroType) -> bool:
        if id(node) in path:
            return True
        if id(node) in done:
            return False
        path.add(id(node))
        below = [
            *node.branches,
            *(each.type for each in node.fields),
            *([node.items] if node.items is not None else []),
        ]
        found = any(visit(each) for each in below)
        path.discard(id(node))
        done.add(id(node))
        return found

    return visit(root)
