"""What can be chosen about the embedded broker."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from trunkline.core.errors import ConfigurationError
from trunkline.core.redaction import learn

KAFKA_VERSION = "4.3.1"

#: The user under which the broker talks to itself once a client listener is secured. Its password is random at each start.
INTERNAL_USER = "trunkline-internal"
#: The user of our own clients, who may do everything. Its password is in a file of the home folder (`password.py`).
OWN_USER = "trunkline"
RESERVED_USERS = frozenset({INTERNAL_USER, OWN_USER, "ANONYMOUS"})
"""Users who have a meaning of their own: nobody else may be called so."""
REAUTHENTICATION_MS = 4000
"""Who signed in with SCRAM signs in anew within this time (KIP-368), so a user whose credential was deleted is cut off by then."""

TLS_VARIABLE = "TRUNKLINE_BROKER_TLS"
_YES, _NO = {"1", "true", "yes", "on"}, {"", "0", "false", "no", "off"}
_HEAP = re.compile(r"^[1-9][0-9]*[kKmMgG]$")
_USER = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$")


@dataclass(frozen=True, slots=True)
class ScramOptions:
    """An administrator who signs in with SCRAM-SHA-512 (RFC 5802, RFC 7677), in the place of our own clients' user.

    The user is written at each start, so a changed password holds from the next start on.
    """

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _USER.match(self.username) or self.username in RESERVED_USERS:
            raise ConfigurationError(
                f"{self.username!r} cannot be the embedded broker's administrator",
                hint="use letters, digits, '.', '_', '-' or '@', at most 63, and none of the broker's own users",
                code="embedded.scram",
            )
        learn(self.password)
        if not self.password:
            raise ConfigurationError("the embedded broker's administrator has an empty password", code="embedded.scram")


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """How the embedded broker is run.

    Unless it is `open`, clients sign in, and nothing is allowed without an ACL, except to our own clients.

    * `heap`: the JVM's `-Xmx`, such as `512m`.
    * `open`: no sign-in and no authorizer: every program of this machine may do everything. For experiments.
    * `scram`: our own clients sign in as this administrator, with SCRAM-SHA-512, and not with the password of the home folder.
    * `tls`: clients talk TLS; the certificate authority is made in the home folder and named in the client options.
    * `overrides`: broker properties that win over ours, for tests of a broker's limits.
    * `start_timeout`: seconds until a broker that is not healthy counts as failed.
    """

    heap: str = "512m"
    open: bool = False
    scram: ScramOptions | None = None
    tls: bool = False
    overrides: Mapping[str, str] = field(default_factory=dict)
    start_timeout: float = 60.0

    def __post_init__(self) -> None:
        if not _HEAP.match(self.heap):
            raise ConfigurationError(
                f"{self.heap!r} is not a size of a Java heap", hint="write it like 512m or 2g", code="embedded.heap"
            )
        if self.open and self.scram is not None:
            raise ConfigurationError(
                "an open embedded broker has no users",
                hint="leave out the administrator, or do not open it",
                code="embedded.open",
            )
        for name, value in self.overrides.items():
            if any(sign in name + value for sign in "\r\n"):
                raise ConfigurationError(f"the override {name!r} holds a line break", code="embedded.overrides")

    @classmethod
    def from_environment(cls, *, is_open: bool = False) -> EmbeddedOptions:
        """The options of a broker that is started by a command: TLS where `TRUNKLINE_BROKER_TLS` says so.

        Raises `ConfigurationError` (`option.tls`) where it says neither yes nor no.
        """
        said = os.environ.get(TLS_VARIABLE, "").strip().lower()
        if said not in _YES | _NO:
            raise ConfigurationError(
                f"{said!r} says neither yes nor no", where=TLS_VARIABLE, hint="set it to 1 or 0", code="option.tls"
            )
        return cls(open=is_open, tls=said in _YES)

    @property
    def secured(self) -> bool:
        """Whether clients come through a listener of their own, apart from the broker's talk with itself."""
        return self.tls or not self.open

    @property
    def client_protocol(self) -> str:
        """Kafka's `security.protocol` of the client listener."""
        if self.open:
            return "SSL" if self.tls else "PLAINTEXT"
        return "SASL_SSL" if self.tls else "SASL_PLAINTEXT"
