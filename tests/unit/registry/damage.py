"""Avro data that are broken on purpose: crafted ones, and good ones with bytes changed by chance."""

from __future__ import annotations

import datetime as dt
import random
from decimal import Decimal
from typing import Any

from .sources import record, zigzag


def logical(kind: str, meaning: str, **more: Any) -> dict[str, Any]:
    return {"type": kind, "logicalType": meaning, **more}


DECIMAL = logical("bytes", "decimal", precision=6, scale=2)
FIXED_DECIMAL = logical("fixed", "decimal", precision=6, scale=2, name="Money", size=4)
ENUM = {"type": "enum", "name": "Carrier", "symbols": ["UA", "DL"]}
TREE = record(("v", "int"), ("next", ["null", "test.R"], None))
TRUST: tuple[Any, ...] = ("internal", "external")

NULLS = {"type": "array", "items": "null"}
ENUMS = {"type": "array", "items": ENUM}
MAYBE = {"type": "map", "values": ["null", "int"]}
WIDE = record(("a", "long"), ("b", "long"), ("c", ENUM))

BROKEN: list[tuple[str, Any, bytes, tuple[str, ...]]] = [
    ("a truncated int", "int", b"\x80", TRUST),
    ("a missing value", "int", b"", TRUST),
    ("a truncated string", "string", zigzag(10) + b"abc", TRUST),
    ("a string of negative size", "string", zigzag(-3) + b"abc", TRUST),
    ("a string of 2^62 bytes", "string", zigzag(2**62) + b"abc", TRUST),
    ("a string that is no UTF-8", "string", zigzag(2) + b"\xff\xfe", TRUST),
    ("a truncated fixed", {"type": "fixed", "name": "F", "size": 4}, b"ab", TRUST),
    ("a truncated double", "double", b"abcd", TRUST),
    ("trailing bytes", "int", zigzag(1) + b"\x00", TRUST),
    ("trailing bytes after null", "null", b"\x00", TRUST),
    ("a union index too high", ["null", "int"], zigzag(7) + zigzag(1), TRUST),
    ("an enum index too high", ENUM, zigzag(2), TRUST),
    ("an array that ends early", {"type": "array", "items": "int"}, zigzag(3) + zigzag(1), TRUST),
    ("a timestamp beyond the year 9999", logical("long", "timestamp-micros"), zigzag(2**62), TRUST),
    ("a uuid that is none", logical("string", "uuid"), zigzag(2) + b"zz", TRUST),
    ("a negative union index", ["null", "int"], zigzag(-1) + zigzag(3), TRUST),
    ("a negative enum index", ENUM, zigzag(-1), TRUST),
    ("a negative union index in a record", record(("a", ["null", "int"])), zigzag(-1) + zigzag(3), TRUST),
    ("a negative enum index in a record", record(("a", ENUM)), zigzag(-1), TRUST),
    ("a negative index in an array", record(("a", ENUMS)), zigzag(1) + zigzag(-2) + zigzag(0), TRUST),
    ("a negative index in a sized block", record(("a", ENUMS)), b"\x01\x02\x03\x00", TRUST),
    ("a negative index in a map", record(("a", MAYBE)), b"\x02\x02k\x03\x00", TRUST),
    ("a negative index beside numbers of many bytes", WIDE, zigzag(2**40) * 2 + zigzag(-1), TRUST),
    ("a negative index among 300 fields", record(("c", ENUM), *((f"f{index}", "null") for index in range(300))), zigzag(-1), TRUST),
    ("an over-long varint", "long", b"\x80" * 11 + b"\x00", TRUST[1:]),
    ("a varint of more than 64 bits", "long", b"\xff" * 9 + b"\x7f", TRUST[1:]),
    ("an int of 41 bits", "int", zigzag(2**40), TRUST[1:]),
    ("a boolean of 5", "boolean", b"\x05", TRUST[1:]),
    ("a time of -5", logical("int", "time-millis"), zigzag(-5), TRUST[1:]),
    ("a decimal of too many digits", DECIMAL, zigzag(4) + b"\x7f\xff\xff\xff", TRUST[1:]),
    ("a block whose size is wrong", {"type": "array", "items": "int"}, zigzag(-1) + zigzag(9) + zigzag(1) + zigzag(0), TRUST[1:]),
    ("a block of -2^63 items", {"type": "array", "items": "int"}, zigzag(-(2**63)) + zigzag(1) + zigzag(1) + zigzag(0), TRUST[1:]),
    ("5,000 levels of recursion", TREE, (zigzag(1) + zigzag(1)) * 5000 + zigzag(1) + zigzag(0), TRUST),
    ("100,000 levels of recursion", TREE, (zigzag(1) + zigzag(1)) * 100_000 + zigzag(1) + zigzag(0), TRUST),
    ("2^31 nulls", NULLS, zigzag(2**31) + zigzag(0), TRUST),
    ("2^31 nulls in many blocks", NULLS, zigzag(2**20) * 2048 + zigzag(0), TRUST),
    ("2^40 empty records", {"type": "array", "items": record(name="E")}, zigzag(2**40) + zigzag(0), TRUST),
    ("-2^62 nulls", NULLS, zigzag(-(2**62)) + zigzag(0) + zigzag(0), TRUST),
]  # fmt: skip
"""Name, schema, body, and on which topics it must be refused: a walk over every byte is paid for on external ones only."""


def busy_schema() -> dict[str, Any]:
    """A schema with one of nearly everything."""
    leg = record(
        ("delay", ["null", "int"]), ("carrier", {"type": "enum", "name": "C", "symbols": ["UA", "DL"]}), name="Leg"
    )
    return record(
        ("id", "long"),
        ("name", "string"),
        ("when", {"type": "long", "logicalType": "timestamp-micros"}),
        ("cost", {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}),
        ("legs", {"type": "array", "items": leg}),
        ("tags", {"type": "map", "values": ["null", "string", "double"]}),
        ("nothing", {"type": "array", "items": "null"}),
        ("next", ["null", "test.R"], None),
    )


def busy_datum() -> dict[str, Any]:
    """A datum of it."""
    datum: dict[str, Any] = {
        "id": 2**40,
        "name": "Zürich",
        "when": dt.datetime(2013, 1, 1, tzinfo=dt.UTC),
        "cost": Decimal("12.34"),
        "legs": [{"delay": 5, "carrier": "UA"}, {"delay": None, "carrier": "DL"}],
        "tags": {"a": None, "b": "x", "c": 1.5},
        "nothing": [None] * 3,
        "next": None,
    }
    return {**datum, "next": datum}


def mutated(chance: random.Random, good: bytes) -> bytes:
    """A value in the wire format with one to four changes behind its schema id."""
    body = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        place = chance.randrange(5, len(body))
        match chance.randrange(4):
            case 0:
                body[place] = chance.randrange(256)
            case 1:
                body[place] ^= 1 << chance.randrange(8)
            case 2:
                del body[place : place + chance.randint(1, 8)]
            case _:
                body[place:place] = chance.randbytes(chance.randint(1, 8))
        if len(body) < 7:
            break
    return bytes(body)
