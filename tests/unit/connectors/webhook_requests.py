"""Requests as providers send them. The signatures are computed here from the vendors' pages, apart from the code under test."""

from __future__ import annotations

import base64
import hashlib
import hmac
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from connectors.webhook.settings import WebhookSettings
from connectors.webhook.source import WebhookSource
from trunkline.core.contracts import PluginContext, Request
from trunkline.core.secret import Secret

NOW = 1_700_000_000
SECRET = "it's a Secret to Everybody"
WHSEC = "whsec_" + base64.b64encode(b"twenty-four bytes of key").decode()


async def source(verify: dict[str, Any], *, now: float = NOW, **config: Any) -> WebhookSource:
    """An opened source; `secrets` are given as plain text."""
    if "secrets" in verify:
        verify = {**verify, "secrets": [Secret.of(secret) for secret in verify["secrets"]]}
    made = WebhookSource(WebhookSettings.model_validate({"path": "/hooks/x", "verify": verify, **config}))
    made.clock = lambda: now
    await made.open(PluginContext("test", "hooks", Path(), structlog.get_logger()))
    return made


def post(body: bytes, headers: dict[str, str] | None = None, method: str = "POST") -> Request:
    """A request as the engine hands it over."""
    given = {"content-type": "application/json", **(headers or {})}
    return Request(method, "/hooks/x", {}, {name.lower(): value for name, value in given.items()}, body, "192.0.2.1")


def hex_mac(secret: str, data: bytes, algorithm: str = "sha256") -> str:
    return hmac.new(secret.encode(), data, algorithm).hexdigest()


def github(body: bytes, event: str = "push", secret: str = SECRET, **headers: str) -> Request:
    signed = {
        "X-Hub-Signature-256": f"sha256={hex_mac(secret, body)}",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": "d-1",
    }
    return post(body, {**signed, **headers})


def slack(body: bytes, stamp: int = NOW, secret: str = SECRET, content_type: str = "application/json") -> Request:
    mac = hex_mac(secret, b"v0:%d:%s" % (stamp, body))
    headers = {"X-Slack-Signature": f"v0={mac}", "X-Slack-Request-Timestamp": str(stamp), "Content-Type": content_type}
    return post(body, headers)


def stripe(body: bytes, stamp: int = NOW, secret: str = SECRET) -> Request:
    mac = hex_mac(secret, b"%d.%s" % (stamp, body))
    return post(
        body,
        {"Stripe-Signature": f"t={stamp},v1={mac},v0=6ffbb59b2300aae63f272406069a9788598b792a944a07aba816edb039989a39"},
    )


def standard(body: bytes, stamp: int = NOW, secret: str = WHSEC, message_id: str = "msg_1") -> Request:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    mac = base64.b64encode(hmac.new(key, b"%s.%d.%s" % (message_id.encode(), stamp, body), hashlib.sha256).digest())
    return post(
        body,
        {"webhook-id": message_id, "webhook-timestamp": str(stamp), "webhook-signature": f"v1a,zzz v1,{mac.decode()}"},
    )


def generic(body: bytes, stamp: int = NOW, secret: str = SECRET, message_id: str = "e1") -> Request:
    mac = hex_mac(secret, b"%d.%s.%s" % (stamp, message_id.encode(), body), "sha512")
    return post(body, {"X-Sig": f"v={mac}", "X-Time": str(stamp), "X-Id": message_id})


GENERIC = {
    "provider": "hmac",
    "header": "X-Sig",
    "algorithm": "sha512",
    "prefix": "v=",
    "signed": "{timestamp}.{id}.{body}",
    "timestamp_header": "X-Time",
    "id_header": "X-Id",
}


def mutated(random_: random.Random, request: Request) -> Request:
    """One change to what is signed or to the signature."""
    headers = dict(request.headers)
    name = random_.choice([name for name in headers if name != "content-type" and not name.startswith("x-github")])
    kind = random_.choice(["body", "flip", "cut", "drop", "pad", "empty", "wild", "repeat"])
    value = headers[name]
    if kind == "body" or name == "content-type":
        body = bytearray(request.body)
        body[random_.randrange(len(body))] ^= 1 << random_.randrange(8)
        return replace(request, body=bytes(body))
    # Some providers' own format names versions that are passed over; only a change behind the last "=" or "," counts.
    start = max(value.rfind("="), value.rfind(","), value.rfind("v0=") - 1) + 1 if kind == "flip" else 0
    at = random_.randrange(min(start, len(value) - 1), len(value))
    changes = {
        "flip": value[:at] + random_.choice("0123456789abcdefXYZ+/") + value[at + 1 :],
        "cut": value[:at],
        "pad": value + random_.choice(["0", "=", "\x00", "\u2028", "%00"]),
        "empty": "",
        "wild": "".join(chr(random_.randrange(1, 0x2FF)) for _ in range(random_.randrange(80))),
        # Stripe's header is a list in which any good signature counts: the same twice would still hold one.
        "repeat": "" if name == "stripe-signature" else value * 2,
    }
    if kind == "drop":
        del headers[name]
    else:
        headers[name] = changes[kind]
    return replace(request, headers=headers)


def plain_headers(request: Request) -> dict[str, str]:
    """The headers with the one signature that counts, without those of other versions that are passed over."""
    headers = dict(request.headers)
    if "stripe-signature" in headers:
        headers["stripe-signature"] = headers["stripe-signature"].partition(",v0=")[0]
    if "webhook-signature" in headers:
        headers["webhook-signature"] = headers["webhook-signature"].partition(" ")[2]
    return headers
