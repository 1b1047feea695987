"""Expressions: CEL (the Common Expression Language, cel.dev) on events, compiled to Python.

`compile_expression` is all that most need. What is decided where CEL leaves room:

* Avro's date is the timestamp of its midnight in UTC, a time of day the duration since midnight, uuid and enum are strings, a decimal is a
  double (exact where it only passes through: `Expression.datum`). Timestamps and durations are to the microsecond: what is
  finer is cut off a timestamp and refused in a duration.
* A field that may be null takes part in every operation; null in one that is not defined for null is an error of that event.
  `has(event.x)` asks whether the field is there, be it null, and is false where `event` itself is null.
* Timestamps print in UTC. Durations reach ±10,000 years, as protobuf's do.
"""

from trunkline.core.expressions.expression import Expression, ExpressionError, compile_expression
from trunkline.core.expressions.types import (
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    NULL,
    STRING,
    TIMESTAMP,
    TYPE,
    UINT,
    CelType,
    cel_to_avro,
    list_of,
    map_of,
    nullable,
    object_of,
    type_of_avro,
)
from trunkline.core.expressions.variables import STANDARD, Variable

__all__ = [
    "BOOL",
    "BYTES",
    "DOUBLE",
    "DURATION",
    "DYN",
    "INT",
    "NULL",
    "STANDARD",
    "STRING",
    "TIMESTAMP",
    "TYPE",
    "UINT",
    "CelType",
    "Expression",
    "ExpressionError",
    "Variable",
    "cel_to_avro",
    "compile_expression",
    "list_of",
    "map_of",
    "nullable",
    "object_of",
    "type_of_avro",
]
