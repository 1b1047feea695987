"""How requests are authorised: settings, and the credentials made from them."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from pydantic import Field

from trunkline.core.errors import ConfigurationError, RetriableError
from trunkline.core.settings import Secret, Settings, setting


class NoAuth(Settings):
    """No credentials."""

    type: Literal["none"] = setting("none", description="No credentials are sent.")


class BasicAuth(Settings):
    """User name and password (RFC 7617)."""

    type: Literal["basic"] = setting(description="HTTP Basic.")
    username: str = setting(
        description="The user name; it can't hold a colon.", pattern=r"^[^:\x00-\x1f\x7f]*$", references=True
    )
    password: Secret = setting(description="The password.")


class BearerAuth(Settings):
    """A fixed token (RFC 6750)."""

    type: Literal["bearer"] = setting(description="A fixed bearer token.")
    token: Secret = setting(description="The token.")


class ApiKeyAuth(Settings):
    """A key in a header or in the query."""

    type: Literal["api_key"] = setting(description="A key in a header or in the query.")
    name: str = setting(
        "X-API-Key", description="The header's name, or the parameter's.", pattern=r"^[A-Za-z0-9_.-]{1,100}$"
    )
    value: Secret = setting(description="The key.")
    place: Literal["header", "query"] = setting(
        "header", description="Where it goes. Servers log queries: prefer the header where both work."
    )


class OAuth2Auth(Settings):
    """OAuth 2.0 client credentials (RFC 6749, section 4.4)."""

    type: Literal["oauth2"] = setting(description="OAuth 2.0 client credentials.")
    token_url: str = setting(
        description="Where tokens are issued.", examples=["https://login.example.com/oauth2/token"], references=True
    )
    client_id: str = setting(description="The client's id.", references=True)
    client_secret: Secret = setting(description="The client's secret.")
    scope: str | None = setting(None, description="Scopes asked for, separated by blanks.", references=True)
    parameters: dict[str, str] = setting(
        {},
        description="More form fields of the token request.",
        examples=[{"audience": "https://api.example.com"}],
        references=True,
    )
    credentials_in: Literal["header", "body"] = setting(
        "header", description="How the client names itself to the token server: HTTP Basic, or form fields."
    )


HttpAuth = Annotated[NoAuth | BasicAuth | BearerAuth | ApiKeyAuth | OAuth2Auth, Field(discriminator="type")]
AnyHttpAuth = NoAuth | BasicAuth | BearerAuth | ApiKeyAuth | OAuth2Auth


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and how many seconds it lives from now; None where the server didn't say."""

    value: str
    lifetime: float | None = None


class Authorizer(Protocol):
    """What adds credentials to requests. One object serves one client."""

    async def headers(self) -> Mapping[str, str]:
        """The headers to add. May make a request of its own; raises `FatalError` when it is refused."""

    def renew(self, sent: Mapping[str, str]) -> bool:
        """Called after a 401 for a request with the headers `sent`: whether asking again may give other credentials."""


class TokenAuthorizer:
    """Bearer tokens that expire: fetched at first use, kept, renewed early, one fetch at a time.

    A token is renewed when nine tenths of its life are over, so that none expires on its way. One without a stated lifetime
    is kept until a 401.
    """

    def __init__(self, fetch: Callable[[], Awaitable[Token]], *, scheme: str = "Bearer") -> None:
        self._fetch = fetch
        self._scheme = scheme
        self._lock = asyncio.Lock()
        self._headers: Mapping[str, str] | None = None
        self._renew_at = self._expires_at = float("inf")

    async def headers(self) -> Mapping[str, str]:
        """The `Authorization` header of a token that is good for now."""
        current = self._headers
        if current is not None and time.monotonic() < self._renew_at:
            return current
        async with self._lock:
            if self._headers is None or time.monotonic() >= self._renew_at:
                await self._renewed()
            assert self._headers is not None
            return self._headers

    async def _renewed(self) -> None:
        asked_at = time.monotonic()
        try:
            token = await self._fetch()
        except RetriableError:
            # The token server is away; the token at hand is good for its last tenth.
            if self._headers is None or time.monotonic() >= self._expires_at:
                raise
            self._renew_at = min(self._expires_at, time.monotonic() + 5.0)
            return
        self._headers = {"Authorization": f"{self._scheme} {token.value}"}
        lifetime = float("inf") if token.lifetime is None else token.lifetime
        self._expires_at, self._renew_at = asked_at + lifetime, asked_at + lifetime * 0.9

    def renew(self, sent: Mapping[str, str]) -> bool:
        """Forgets the token that was refused; keeps a newer one that another request fetched in the meantime."""
        current = self._headers
        if current is not None and sent.get("Authorization") == current["Authorization"]:
            self._headers = None
        return True


def static_credentials(auth: AnyHttpAuth | None) -> tuple[dict[str, str], dict[str, str]]:
    """The headers and the query parameters of credentials that don't change. Reveals the secret.

    Raises `ConfigurationError` for a secret that is missing or can't stand in a header.
    """
    if isinstance(auth, BasicAuth):
        return {"Authorization": basic_header(auth.username, auth.password.reveal())}, {}
    if isinstance(auth, BearerAuth):
        return {"Authorization": f"Bearer {_sendable(auth.token)}"}, {}
    if isinstance(auth, ApiKeyAuth):
        if auth.place == "query":
            return {}, {auth.name: auth.value.reveal()}
        return {auth.name: _sendable(auth.value)}, {}
    return {}, {}


def basic_header(username: str, password: str) -> str:
    """The value of an `Authorization` header (RFC 7617, UTF-8)."""
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode("ascii")


def _sendable(secret: Secret) -> str:
    value = secret.reveal()
    if not value.isprintable() or not value.isascii():
        raise ConfigurationError(
            f"the secret {secret.reference} can't stand in a header: it holds control characters or is not ASCII",
            hint="look for a line break at its end",
            code="secret.unsendable",
        )
    return value
