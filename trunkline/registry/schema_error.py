"""Why a schema can't be used: it breaks a rule of Avro, or judging it costs too much."""

from __future__ import annotations

from trunkline.core.errors import ConfigurationError


class SchemaError(ConfigurationError):
    """A schema breaks a rule of Avro; `where` is the path of the place, such as `/fields/3/type`."""

    code = "schema.invalid"


class TooCostlyError(SchemaError):
    """Judging the schema takes more steps than a request may have."""

    code = "schema.too_costly"
