"""Settings of outgoing HTTP that every connection shares."""

from __future__ import annotations

from pydantic import field_validator

from trunkline.core.http.address import parse_network
from trunkline.core.settings import Duration, Settings, Size, setting


class HttpOptions(Settings):
    """Limits of outgoing requests and the private addresses they may reach."""

    timeout: Duration = setting(
        30.0, gt=0, le=3600, description="How long a request may take in all, its answer's body included."
    )
    connect_timeout: Duration = setting(
        10.0, gt=0, le=600, description="How long a connection may take to one address, TLS included."
    )
    allow_private: list[str] = setting(
        [],
        description="Host names, addresses or CIDRs that may be reached although they are private or loopback. "
        "All others of that kind are refused.",
        examples=[["crm.internal", "10.20.0.0/16"]],
        max_length=100,
    )
    ca_file: str | None = setting(
        None,
        description="A PEM file of certificate authorities that are trusted besides the system's.",
        references=True,
    )
    max_response: Size = setting(
        16 * 2**20, ge=1, description="The largest answer that is read, after decompression. A larger one is an error."
    )
    max_connections: int = setting(
        100,
        ge=1,
        le=10_000,
        description="Connections that may be open at once: to read (GET), and as many to send.",
    )

    @field_validator("allow_private")
    @classmethod
    def _known_forms(cls, value: list[str]) -> list[str]:
        for entry in value:
            parse_network(entry)
        return value
