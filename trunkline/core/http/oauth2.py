"""The token request of OAuth 2.0 client credentials (RFC 6749, sections 2.3.1, 4.4 and 5)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode

import orjson

from trunkline.core.errors import FatalError, RetriableError
from trunkline.core.http.auth import OAuth2Auth, Token, basic_header
from trunkline.core.http.errors import NotSentError
from trunkline.core.http.response import HttpResponse
from trunkline.core.redaction import excerpt, learn
from trunkline.core.secret import sounds_secret

_TOKENS = frozenset({"assertion", "code", "device_code", "id_token_hint", "jwt", "sid", "session_id"})
"""Names of tokens that don't sound like one."""
_LARGEST = 64 * 1024
_FIELDS = 100

Post = Callable[[dict[str, str], bytes], Awaitable[HttpResponse]]
"""Posts a body with headers to the token server."""


async def fetch_token(settings: OAuth2Auth, post: Post) -> Token:
    """A new token.

    Raises `FatalError` when the server refuses the client (4xx), and `NotSentError` for all that may pass: the request that
    wanted the token was not sent.
    """
    form = {"grant_type": "client_credentials", **settings.parameters}
    if settings.scope:
        form["scope"] = settings.scope
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
    secret = settings.client_secret.reveal()
    if settings.credentials_in == "header":
        # Section 2.3.1: id and secret are form-encoded before they are joined.
        headers["Authorization"] = basic_header(quote_plus(settings.client_id), quote_plus(secret))
    else:
        form |= {"client_id": settings.client_id, "client_secret": secret}
    try:
        response = await post(headers, urlencode(form).encode())
    except RetriableError as error:
        raise NotSentError(f"no token could be fetched: {error}", after=error.after) from None
    return token_from_response(response)


def token_from_response(response: HttpResponse) -> Token:
    """The token of a token server's answer (RFC 6749, section 5.1). Raises as `fetch_token` does."""
    learn_tokens(response)
    if response.status in (408, 425, 429) or response.status >= 500:
        raise NotSentError(f"no token could be fetched: {response.summary}", after=response.retry_after())
    try:
        answer: Any = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    value = answer.get("access_token")
    if response.ok and isinstance(value, str) and value.isascii() and value.isprintable() and value:
        return Token(value, _lifetime(answer.get("expires_in")))
    if response.ok:
        # The body is not quoted: it may hold a token in a field of another name.
        raise FatalError(
            f"{response.request} answered {response.status} without a usable access_token", code="http.token"
        )
    told = ", ".join(excerpt(str(answer[name]), 200) for name in ("error", "error_description") if answer.get(name))
    raise FatalError(
        f"the token server refuses the client: {response.request} answered {response.status}{f' ({told})' if told else ''}",
        hint="check client_id, client_secret and scope",
        code="http.token",
    )


def learn_tokens(response: HttpResponse) -> None:
    """Makes secrets of the tokens in a token server's answer, whatever its status: nobody else may read them.

    An answer is JSON (RFC 6749, section 5.1), or a form as some servers send it.
    """
    try:
        answer: Any = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        answer = dict(parse_qsl(response.text[:_LARGEST], separator="&")[:_FIELDS])
    for name, value in answer.items() if isinstance(answer, dict) else ():
        if isinstance(value, str) and len(value) > 1 and (sounds_secret(name) or name in _TOKENS):
            learn(value, issued=True)


def _lifetime(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        return None
    return seconds if 0 < seconds < 10**9 else None
