"""Signatures by Standard Webhooks (https://github.com/standard-webhooks/standard-webhooks, spec 1.0.0, symmetric scheme)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

from trunkline.core.errors import ConfigurationError
from trunkline.core.settings import Secret

_PREFIX = "whsec_"


class Signer:
    """Signs with every secret, so that a receiver that knows one of them accepts. Reveals the secrets."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._keys = [hmac.new(_key(secret), digestmod=hashlib.sha256) for secret in secrets]

    def headers(self, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        """The three headers. `message_id` stays the same when a delivery is tried again; `timestamp` is Unix seconds."""
        content = f"{message_id}.{timestamp}.".encode() + body
        signatures = []
        for key in self._keys:
            mac = key.copy()
            mac.update(content)
            signatures.append("v1," + base64.b64encode(mac.digest()).decode("ascii"))
        return {
            "webhook-id": message_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }


def _key(secret: Secret) -> bytes:
    try:
        key = base64.b64decode(secret.reveal().strip().removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not 24 <= len(key) <= 64:
        raise ConfigurationError(
            f"the signing secret {secret.reference} is not base64 of 24 to 64 bytes",
            hint="Standard Webhooks writes it as whsec_ and base64",
            code="secret.invalid",
        )
    return key
