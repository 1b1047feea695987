"""What the registry's REST interface answers when it can't do what was asked.

Source of the codes: https://docs.confluent.io/platform/current/schema-registry/develop/api.html#errors, and the constants
that Confluent's own registry answers with.
"""

from __future__ import annotations

from trunkline.core.errors import TrunklineError
from trunkline.registry.compatibility import LEVELS

SUBJECT_NOT_FOUND = 40401
VERSION_NOT_FOUND = 40402
SCHEMA_NOT_FOUND = 40403
SUBJECT_SOFT_DELETED = 40404
SUBJECT_NOT_SOFT_DELETED = 40405
VERSION_SOFT_DELETED = 40406
VERSION_NOT_SOFT_DELETED = 40407
SUBJECT_CONFIG_NOT_FOUND = 40408
SUBJECT_MODE_NOT_FOUND = 40409
INVALID_SCHEMA = 42201
INVALID_VERSION = 42202
INVALID_COMPATIBILITY = 42203
INVALID_MODE = 42204
OPERATION_NOT_PERMITTED = 42205
REFERENCE_EXISTS = 42206
INVALID_SUBJECT = 42208
INCOMPATIBLE = 409
STORE_FAILED = 50001
STORE_TIMED_OUT = 50002

MODES = ("READWRITE", "READONLY", "READONLY_OVERRIDE", "IMPORT")


class RegistryError(TrunklineError):
    """A refusal with the registry's `number`; the HTTP status is its first three digits."""

    code = "registry.request"
    exit_code = 1

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.number = number

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.number if self.number < 1000 else self.number // 100


def subject_not_found(subject: str) -> RegistryError:
    """No such subject, or only a deleted one."""
    return RegistryError(SUBJECT_NOT_FOUND, f"Subject '{subject}' not found.")


def version_not_found(version: object) -> RegistryError:
    """The subject has no such version."""
    return RegistryError(VERSION_NOT_FOUND, f"Version {version} not found.")


def schema_not_found(detail: str = "") -> RegistryError:
    """No schema of that id, or not that schema under the subject."""
    return RegistryError(SCHEMA_NOT_FOUND, f"Schema {detail} not found" if detail else "Schema not found")


def invalid_version(version: object) -> RegistryError:
    """What was given as a version is none."""
    return RegistryError(
        INVALID_VERSION,
        f"The specified version '{version}' is not a valid version id. "
        'Allowed values are between [1, 2^31-1] and the string "latest"',
    )


def invalid_subject(subject: str) -> RegistryError:
    """The subject has control characters, or a name that the registry keeps for itself."""
    return RegistryError(INVALID_SUBJECT, f"The specified subject {subject[:100]!r} is not a valid subject.")


def invalid_compatibility(level: object) -> RegistryError:
    """There is no such compatibility level."""
    names = ", ".join(level.lower() for level in LEVELS)
    return RegistryError(
        INVALID_COMPATIBILITY, f"Invalid compatibility level {str(level)[:100]!r}. Valid values are {names}"
    )


def invalid_mode(mode: object) -> RegistryError:
    """There is no such mode."""
    return RegistryError(INVALID_MODE, f"Invalid mode {str(mode)[:100]!r}. Valid values are {', '.join(MODES)}")
