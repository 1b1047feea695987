"""Tokens of the stand-in org: OAuth2 client credentials, JWT bearer and password grants.

Flows: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_flows.htm (errors as RFC 6749, section 5.2, has them).
"""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

AUDIENCES = ("https://login.salesforce.com", "https://test.salesforce.com")
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LONGEST_ASSERTION = 300


class GrantError(Exception):
    """No token: an RFC 6749 error and its description."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.description = description


@dataclass(slots=True)
class TokenIssuer:
    """Hands out tokens to one app and one user, and knows which are alive.

    Without `public_key` (PEM), the app has no certificate, and JWT assertions are refused. `audiences` are accepted besides
    Salesforce's own.
    """

    client_id: str
    client_secret: str
    username: str
    password: str
    public_key: str | None = None
    audiences: tuple[str, ...] = ()
    issued: int = 0
    _alive: set[str] = field(default_factory=set)

    def grant(self, form: Mapping[str, str], authorization: str | None) -> str:
        """A new access token. Raises `GrantError`."""
        kind = form.get("grant_type")
        if kind == JWT_BEARER:
            self._check_assertion(form.get("assertion", ""))
        elif kind in {"client_credentials", "password"}:
            self._check_client(form, authorization)
            if kind == "password" and not (
                form.get("username") == self.username and _same(form.get("password", ""), self.password)
            ):
                raise GrantError("invalid_grant", "authentication failure")
        else:
            raise GrantError("unsupported_grant_type", "grant type not supported")
        token = f"00D000000000001!{secrets.token_urlsafe(24)}"
        self._alive.add(token)
        self.issued += 1
        return token

    def knows(self, authorization: str | None) -> bool:
        """Whether an Authorization header bears a token that is alive."""
        return (authorization or "").removeprefix("Bearer ").removeprefix("OAuth ") in self._alive

    def expire(self) -> None:
        """Ends all sessions."""
        self._alive.clear()

    def _check_client(self, form: Mapping[str, str], authorization: str | None) -> None:
        client, secret = form.get("client_id", ""), form.get("client_secret", "")
        if authorization and authorization.startswith("Basic "):
            try:
                client, _, secret = base64.b64decode(authorization[6:]).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError) as error:
                raise GrantError("invalid_client", "invalid client credentials") from error
        if client != self.client_id:
            raise GrantError("invalid_client_id", "client identifier invalid")
        if not _same(secret, self.client_secret):
            raise GrantError("invalid_client", "invalid client credentials")

    def _check_assertion(self, assertion: str) -> None:
        if self.public_key is None:
            raise GrantError("invalid_grant", "the app has no certificate")
        try:
            claims: dict[str, Any] = jwt.decode(
                assertion,
                self.public_key,
                algorithms=["RS256"],
                audience=[*AUDIENCES, *self.audiences],
                options={"require": ["iss", "sub", "aud", "exp"]},
            )
        except jwt.ExpiredSignatureError as error:
            raise GrantError("invalid_grant", "expired authorization code") from error
        except jwt.InvalidAudienceError as error:
            raise GrantError("invalid_grant", "audience is invalid") from error
        except jwt.InvalidTokenError as error:
            raise GrantError("invalid_grant", "invalid assertion") from error
        if claims["iss"] != self.client_id:
            raise GrantError("invalid_client_id", "client identifier invalid")
        if claims["sub"] != self.username:
            raise GrantError("invalid_grant", "user hasn't approved this consumer")
        if int(claims["exp"]) > time.time() + LONGEST_ASSERTION:
            raise GrantError("invalid_grant", "the assertion lives too long")


def _same(given: str, expected: str) -> bool:
    return secrets.compare_digest(given.encode(), expected.encode())
