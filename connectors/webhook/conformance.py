"""The conformance of the `webhook` source, with GitHub as the sender."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

from connectors.webhook.source import WebhookSource
from trunkline.core.contracts import Request
from trunkline.core.testing import PushSourceKit, push_source_suite

_SECRET = "conformance-webhook-secret-5521"  # noqa: S105 (of a test)


class WebhookKit(PushSourceKit):
    """A sender that signs as GitHub does: HMAC-SHA256 of the body in `X-Hub-Signature-256`."""

    @property
    def environment(self) -> Mapping[str, str]:
        return {"CONFORMANCE_WEBHOOK_SECRET": _SECRET}

    @property
    def config(self) -> Any:
        return {
            "path": "/hooks/conformance",
            "verify": {"provider": "github", "secrets": ["${env:CONFORMANCE_WEBHOOK_SECRET}"]},
            "max_body": "64 KiB",
        }

    def request(self, number: int) -> Request:
        return self._signed(json.dumps({"number": number}).encode(), _SECRET, number)

    def forged(self) -> Request:
        return self._signed(b'{"number": 0}', "another secret", 0)

    def unreadable(self) -> Request:
        return self._signed(b'{"number": ', _SECRET, 0)

    def _signed(self, body: bytes, secret: str, number: int) -> Request:
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {
            "content-type": "application/json",
            "x-github-event": "push",
            "x-github-delivery": f"72d3162e-cc78-11e3-81ab-{number:012}",
            "x-hub-signature-256": f"sha256={signature}",
        }
        return Request("POST", "/hooks/conformance", {}, headers, body, "127.0.0.1")


TestWebhookSource = push_source_suite(WebhookSource, factory=WebhookKit)
