"""Every connector that has secrets, with each kind of credentials that it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

VARIABLE = "CANARY"
CANARY = f"${{env:{VARIABLE}}}"
HTTP = {"allow_private": ["127.0.0.1"], "timeout": 5, "connect_timeout": 2}
Made = tuple[dict[str, Any], dict[str, Any] | None]
"""The `config` of a pipeline, and that of its connection."""


@dataclass(frozen=True)
class Case:
    """One connector with one kind of credentials, at a peer's address."""

    kind: str
    connector: str
    made: Callable[[str], Made]
    secret: Callable[[str, str], str] = lambda canary, _url: canary
    """What the variable holds, of a canary and the peer's address."""
    header: bool = False
    """Whether the secret stands in a header as it is, and so has to be printable ASCII."""
    tokens: bool = False
    """Whether it asks for tokens."""
    most: int = 60
    """How many canaries it is tried with: fewer where each try waits."""


@cache
def rsa_key() -> str:
    """A key of this process."""
    key = generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _account(_canary: str, url: str) -> str:
    found = {"client_email": "bus@example.com", "private_key": rsa_key(), "token_uri": f"{url}/token"}
    return json.dumps({"type": "service_account", **found}, indent=2)


def _http(auth: Mapping[str, Any], **config: Any) -> Callable[[str], Made]:
    return lambda url: ({"url": "/orders", **config}, {"base_url": url, "auth": auth, "http": HTTP})


def _polled(auth: Mapping[str, Any], **config: Any) -> Callable[[str], Made]:
    return lambda url: ({"path": "/orders", **config}, {"base_url": url, "auth": auth, "http": HTTP})


def _oauth(place: str) -> Callable[[str], Made]:
    def made(url: str) -> Made:
        auth = {"type": "oauth2", "token_url": f"{url}/token", "client_id": "bus", "client_secret": CANARY}
        return {"url": "/orders"}, {"base_url": url, "auth": {**auth, "credentials_in": place}, "http": HTTP}

    return made


def _salesforce(auth: Mapping[str, Any]) -> Callable[[str], Made]:
    def made(url: str) -> Made:
        config = {"object": "Order__c", "external_id": "Key__c", "fields": {"Key__c": "string(event.id)"}}
        return config, {"url": url, "auth": auth, "http": HTTP}

    return made


_BASIC = {"type": "basic", "username": "bus", "password": CANARY}
_BEARER = {"type": "bearer", "token": CANARY}
_IN_QUERY = {"type": "api_key", "name": "key", "value": CANARY, "place": "query"}
_JWT = {"type": "jwt_bearer", "client_id": "app", "username": "bus@example.com", "private_key": CANARY}

CASES: Mapping[str, Case] = {
    "http, Basic": Case("sink", "http", _http(_BASIC)),
    "http, bearer": Case("sink", "http", _http(_BEARER), header=True),
    "http, key in a header": Case("sink", "http", _http({"type": "api_key", "value": CANARY}), header=True),
    "http, key in the query": Case("sink", "http", _http(_IN_QUERY)),
    "http, OAuth2 by header": Case("sink", "http", _oauth("header"), tokens=True),
    "http, OAuth2 by form": Case("sink", "http", _oauth("body"), tokens=True),
    "http, a header of its own": Case(
        "sink", "http", _http({"type": "none"}, headers={"X-Api-Key": CANARY}), header=True
    ),
    "http, an address that is a secret": Case(
        "sink",
        "http",
        lambda _url: ({"url": CANARY}, {"http": HTTP}),
        lambda canary, url: f"{url}/webhookb2/{canary}-0123456789abcdef0123456789abcdef/IncomingWebhook",
        header=True,
    ),
    "slack, token": Case(
        "sink",
        "slack",
        lambda url: ({"channel": "#ops", "text": "{{ event.id }}"}, {"token": CANARY, "base_url": url, "http": HTTP}),
        header=True,
    ),
    "slack, webhook": Case(
        "sink",
        "slack",
        lambda _url: ({"text": "{{ event.id }}"}, {"webhook_url": CANARY, "http": HTTP}),
        lambda canary, url: f"{url}/services/T0AB12CD3/B0EF45GH6/{canary}",
        header=True,
    ),
    "salesforce, client credentials": Case(
        "sink",
        "salesforce",
        _salesforce({"type": "client_credentials", "client_id": "app", "client_secret": CANARY}),
        tokens=True,
    ),
    "salesforce, JWT": Case("sink", "salesforce", _salesforce(_JWT), lambda _canary, _url: rsa_key(), tokens=True),
    "google_sheets": Case(
        "sink",
        "google_sheets",
        lambda url: (
            {"spreadsheet": "sheet", "columns": {"Id": "event.id"}},
            {"service_account": CANARY, "base_url": url, "http": HTTP},
        ),
        _account,
        tokens=True,
    ),
    "http_poll, Basic": Case("source", "http_poll", _polled(_BASIC)),
    "http_poll, bearer": Case("source", "http_poll", _polled(_BEARER), header=True),
    "http_poll, key in the query": Case("source", "http_poll", _polled(_IN_QUERY)),
    "http_poll, pages by link": Case(
        "source", "http_poll", _polled(_IN_QUERY, pagination={"type": "link"}, items="items")
    ),
    "sftp, password": Case(
        "sink",
        "sftp",
        lambda url: (
            {"folder": "/", "format": {"type": "jsonl", "columns": ["id"]}},
            {
                "host": "127.0.0.1",
                "port": int(url.rpartition(":")[2]),
                "user": "bus",
                "password": CANARY,
                "host_keys": ["SHA256:" + "A" * 43],
                "allow_private": ["127.0.0.1"],
                "connect_timeout": 0.5,
            },
        ),
        most=4,
    ),
}
"""By name."""
