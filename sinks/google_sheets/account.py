"""Access tokens for a Google service account: a signed JWT is traded for a bearer token.

https://developers.google.com/identity/protocols/oauth2/service-account#httprest, RFC 7523.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import urlencode

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.http import HttpClient, NotSentError, Token, token_from_response
from trunkline.core.jsontext import read_json
from trunkline.core.redaction import learn
from trunkline.core.settings import Secret

SCOPE = "https://www.googleapis.com/auth/spreadsheets"
_GRANT = "urn:ietf:params:oauth:grant-type:jwt-bearer"
_LIFETIME = 3600
"""Seconds that an assertion is valid; Google refuses more than an hour."""


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """What is needed of a service account's key file."""

    client_email: str
    token_uri: str
    private_key: str = field(repr=False)
    private_key_id: str | None = None

    @classmethod
    def parse(cls, secret: Secret) -> ServiceAccount:
        """The account of a key file's text. Raises `ConfigurationError` that names the reference and what is missing."""
        hint = "it must be the JSON key file of a service account, as downloaded from Google's console"
        try:
            found = read_json(secret.reveal())
        except ValueError:
            # The parser's own message could hold a part of the key.
            raise ConfigurationError(f"{secret.reference} is no JSON", hint=hint, code="google_sheets.key") from None
        missing = [
            name
            for name in ("client_email", "private_key", "token_uri")
            if not (isinstance(found, dict) and isinstance(found.get(name), str))
        ]
        if missing:
            raise ConfigurationError(
                f"{secret.reference} lacks {', '.join(missing)}", hint=hint, code="google_sheets.key"
            )
        learn(found["private_key"])
        return cls(found["client_email"], found["token_uri"], found["private_key"], found.get("private_key_id"))

    def assertion(self, now: float) -> str:
        """A JWT that says who we are, signed with RS256. Raises `ConfigurationError` for a key that is none."""
        claims = {
            "iss": self.client_email,
            "scope": SCOPE,
            "aud": self.token_uri,
            "iat": int(now),
            "exp": int(now) + _LIFETIME,
        }
        headers = {"kid": self.private_key_id} if self.private_key_id else None
        assertion = jwt.encode(claims, _rsa_key(self.private_key), algorithm="RS256", headers=headers)
        learn(assertion, issued=True)
        return assertion


@lru_cache(maxsize=16)
def _rsa_key(pem: str) -> RSAPrivateKey:
    """The key, checked: OpenSSL takes some 70 ms for it, and sinks share accounts."""
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigurationError(
            "the service account's private_key is no RSA key in PEM form",
            hint="download the key file again",
            code="google_sheets.key",
        )
    return key


async def fetch_token(account: ServiceAccount, http: HttpClient) -> Token:
    """A new access token.

    Raises `FatalError` when Google refuses the account, and `NotSentError` for what may pass: nothing was written anywhere, so
    the outcome of the delivery that wanted the token is not in doubt.
    """
    assertion = await asyncio.to_thread(account.assertion, time.time())
    form = urlencode({"grant_type": _GRANT, "assertion": assertion})
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    try:
        response = await http.request("POST", account.token_uri, headers=headers, content=form.encode())
        token = token_from_response(response)
    except RetriableError as error:
        raise NotSentError(f"no access token from Google: {error}", after=error.after) from None
    except FatalError as error:
        raise FatalError(
            f"Google refuses the service account {account.client_email}: {error.message}",
            hint="check that its key is not deleted and that this machine's clock is right",
            code="google_sheets.credentials",
        ) from None
    return token
