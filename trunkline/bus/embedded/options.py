"""What can be chosen about the embedded broker."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from trunkline.core.errors import ConfigurationError
from trunkline.core.redaction import learn

KAFKA_VERSION = "4.3.1"

#: The user under which the broker talks to itself once a client listener is secured. Its password is random at each start.
INTERNAL_USER = "trunkline-internal"

_HEAP = re.compile(r"^[1-9][0-9]*[kKmMgG]$")
_USER = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,62}$")


@dataclass(frozen=True, slots=True)
class ScramOptions:
    """The first administrator of a broker whose clients must sign in with SCRAM-SHA-512 (RFC 5802, RFC 7677).

    The user is written at each start, so a changed password holds from the next start on.
    """

    username: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        if not _USER.match(self.username) or self.username == INTERNAL_USER:
            raise ConfigurationError(
                f"{self.username!r} cannot be the embedded broker's administrator",
                hint="use letters, digits, '.', '_', '-' or '@', at most 63, and not the broker's own user",
                code="embedded.scram",
            )
        learn(self.password)
        if not self.password:
            raise ConfigurationError("the embedded broker's administrator has an empty password", code="embedded.scram")


@dataclass(frozen=True, slots=True)
class EmbeddedOptions:
    """How the embedded broker is run.

    * `heap`: the JVM's `-Xmx`, such as `512m`.
    * `scram`: clients sign in with SCRAM-SHA-512; without it they are anonymous.
    * `tls`: clients talk TLS; the certificate authority is made in the home folder and named in the client options.
    * `authorizer`: nothing is allowed without an ACL, except to the administrator. Needs `scram`.
    * `overrides`: broker properties that win over ours, for tests of a broker's limits.
    * `start_timeout`: seconds until a broker that is not healthy counts as failed.
    """

    heap: str = "512m"
    scram: ScramOptions | None = None
    tls: bool = False
    authorizer: bool = False
    overrides: Mapping[str, str] = field(default_factory=dict)
    start_timeout: float = 60.0

    def __post_init__(self) -> None:
        if not _HEAP.match(self.heap):
            raise ConfigurationError(
                f"{self.heap!r} is not a size of a Java heap", hint="write it like 512m or 2g", code="embedded.heap"
            )
        if self.authorizer and self.scram is None:
            raise ConfigurationError(
                "the embedded broker's authorizer needs users to tell apart",
                hint="switch on SCRAM as well",
                code="embedded.authorizer",
            )
        for name, value in self.overrides.items():
            if any(sign in name + value for sign in "\r\n"):
                raise ConfigurationError(f"the override {name!r} holds a line break", code="embedded.overrides")

    @property
    def secured(self) -> bool:
        """Whether clients come through a listener of their own, apart from the broker's talk with itself."""
        return self.scram is not None or self.tls

    @property
    def client_protocol(self) -> str:
        """Kafka's `security.protocol` of the client listener."""
        if self.scram is not None:
            return "SASL_SSL" if self.tls else "SASL_PLAINTEXT"
        return "SSL" if self.tls else "PLAINTEXT"
