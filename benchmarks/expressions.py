"""What expressions cost: nanoseconds a call on an Avro event, with and without its schema. `python benchmarks/expressions.py`"""

from __future__ import annotations

import timeit
from typing import Any

from trunkline.core.expressions import compile_expression

SCHEMA = {
    "type": "record",
    "name": "Departed",
    "fields": [
        {"name": "dep_delay", "type": ["null", "int"]},
        {"name": "carrier", "type": "string"},
        {"name": "distance", "type": "double"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}
EVENT: dict[str, Any] = {"dep_delay": 20, "carrier": "UA", "distance": 1400.0, "tags": ["late", "domestic", "long"]}
EXPRESSIONS = (
    "event.dep_delay >= 15",
    "event.dep_delay != null && event.dep_delay >= 15",
    "event.carrier in ['UA', 'AA', 'DL'] && event.distance > 1000.0",
    "event.dep_delay * 60 + 5",
    "event.carrier.startsWith('U') ? 'united' : event.carrier",
    "event.tags.exists(t, t == 'long')",
)


def nanoseconds(text: str, schema: Any) -> float:
    """The best of seven rounds of 200,000 calls."""
    fn = compile_expression(text, schema=schema).fn
    return min(timeit.repeat(lambda: fn(EVENT, None), number=200_000, repeat=7)) / 200_000 * 1e9


def main() -> None:
    """Prints a table."""
    print(f"{'schema':>8} {'none':>8}  expression (ns a call, with the call of a lambda around it)")
    for text in EXPRESSIONS:
        print(f"{nanoseconds(text, SCHEMA):8.0f} {nanoseconds(text, None):8.0f}  {text}")


if __name__ == "__main__":
    main()
