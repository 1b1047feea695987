"""The REST side of an org: tokens, requests, one refresh of an expired session, and the usage of the daily limit.

Token flows: https://help.salesforce.com/s/articleView?id=sf.remoteaccess_oauth_client_credentials_flow.htm and
`…remoteaccess_oauth_jwt_flow.htm`. Limit header:
https://developer.salesforce.com/docs/atlas.en-us.api_rest.meta/api_rest/headers_api_usage.htm
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode

import jwt
import orjson

from sinks.salesforce.settings import ClientCredentials, SalesforceConnection, is_safe_address
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.http import HttpClient, HttpResponse, NoAnswerError, learn_tokens
from trunkline.core.redaction import excerpt, learn

_USAGE = re.compile(r"(?:^|[;,\s])api-usage=(\d+)/(\d+)")
_ASSERTION_LIFE = 180
_FORM = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}


@dataclass(frozen=True, slots=True)
class Usage:
    """Requests used of the org's rolling 24 hours, and when that was seen (monotonic seconds)."""

    used: int
    total: int
    seen: float

    @property
    def share(self) -> float:
        """0 to 1, or more when an org is let run over its limit."""
        return self.used / self.total if self.total else 1.0

    def __str__(self) -> str:
        return f"{self.used}/{self.total}"


@dataclass(frozen=True, slots=True)
class _Session:
    token: str
    instance: str
    user: str | None = None


class SalesforceClient:
    """Requests to one org. `usage` is what the latest answer said of the daily limit, None before the first."""

    def __init__(self, connection: SalesforceConnection, *, largest_answer: int = 0) -> None:
        self._connection = connection
        largest = max(largest_answer, connection.http.max_response)
        self._http = HttpClient(connection.http.model_copy(update={"max_response": largest}))
        self._session: _Session | None = None
        self._signing_in = asyncio.Lock()
        self.usage: Usage | None = None

    @property
    def user(self) -> str | None:
        """The id of the user that we are signed in as, where it is known."""
        return self._session.user if self._session is not None else None

    async def request(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        media: str = "application/json",
        timeout: float | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> HttpResponse:
        """The answer to a request for `path`, below `/services/data/vXX.X/`. `media` is the type of `content`.

        `timeout` is in seconds, where it is to be more than the connection's.

        A session that has expired is refreshed once, by one caller for all that wait. Raises `FatalError` when Salesforce
        refuses the credentials or the new session too, `NotSentError` or a plain `RetriableError` when nothing was sent, and
        `NoAnswerError` when the effect is not known.
        """
        send = partial(
            self._send,
            method=method,
            path=path,
            content=content,
            media=media,
            timeout=None if timeout is None else max(timeout, self._connection.http.timeout),
            correlation_id=correlation_id,
            traceparent=traceparent,
        )
        session = await self._signed_in(None)
        response = await send(session)
        if response.status != 401:
            return response
        session = await self._signed_in(session)
        response = await send(session)
        if response.status == 401:
            raise FatalError(
                f"Salesforce refuses a session that it has just given: {describe_refusal(response)}",
                where=self._connection.url,
                hint="the app's user may lack the API Enabled permission, or come from an address that is not allowed",
                code="salesforce.session",
            )
        return response

    async def measure_usage(self) -> Usage | None:
        """Asks the org how much of the daily limit is used. Raises as `request` does."""
        response = await self.request("GET", "limits")
        if response.status == 200:
            try:
                daily = json_of(response)["DailyApiRequests"]
                total = int(daily["Max"])
                self.usage = Usage(total - int(daily["Remaining"]), total, time.monotonic())
            except (ValueError, KeyError, TypeError) as error:
                raise RetriableError(
                    "Salesforce's answer on its limits can't be read",
                    where=self._connection.url,
                    code="salesforce.unreadable",
                ) from error
        return self.usage

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.close()

    async def _send(
        self,
        session: _Session,
        *,
        method: str,
        path: str,
        content: bytes | None,
        media: str,
        timeout: float | None,
        correlation_id: str | None,
        traceparent: str | None,
    ) -> HttpResponse:
        headers = {
            "Authorization": f"Bearer {session.token}",
            "Accept": "application/json, text/csv",
            "Sforce-Call-Options": "client=Trunkline",
        }
        if content is not None:
            headers["Content-Type"] = media
        response = await self._http.request(
            method,
            f"{session.instance}/services/data/v{self._connection.api_version}/{path}",
            headers=headers,
            content=content,
            timeout=timeout,
            correlation_id=correlation_id,
            traceparent=traceparent,
        )
        match = _USAGE.search(response.headers.get("Sforce-Limit-Info", ""))
        if match is not None:
            self.usage = Usage(int(match.group(1)), int(match.group(2)), time.monotonic())
        return response

    async def _signed_in(self, refused: _Session | None) -> _Session:
        """The current session, or a new one when there is none or `refused` is the current one."""
        async with self._signing_in:
            if self._session is None or self._session is refused:
                self._session = None
                self._session = await self._sign_in()
            return self._session

    async def _sign_in(self) -> _Session:
        url = f"{self._connection.url}/services/oauth2/token"
        try:
            response = await self._http.request("POST", url, headers=_FORM, content=urlencode(self._grant()).encode())
        except NoAnswerError as error:
            # A lost token costs nothing, and the records themselves were never sent.
            raise RetriableError(
                f"no answer to the request for a token: {error}", where=url, code="salesforce.sign_in_later"
            ) from error
        learn_tokens(response)
        if response.status == 429 or response.status >= 500:
            raise RetriableError(
                f"Salesforce gives no token now: status {response.status}",
                after=response.retry_after(),
                where=url,
                code="salesforce.sign_in_later",
            )
        answer = json_of(response)
        if response.status != 200:
            said = answer if isinstance(answer, dict) else {}
            reason = ": ".join(str(said[name]) for name in ("error", "error_description") if said.get(name))
            raise FatalError(
                f"Salesforce refuses to sign in: {reason or f'status {response.status}'}",
                where=url,
                hint="check the app's flow, its consumer key, its secret or certificate, and the user",
                code="salesforce.sign_in",
            )
        if not isinstance(answer, dict) or not isinstance(answer.get("access_token"), str):
            raise FatalError(
                "the answer to the request for a token holds none",
                where=url,
                hint="the address must be the org's My Domain",
                code="salesforce.sign_in",
            )
        instance = str(answer.get("instance_url") or self._connection.url).rstrip("/")
        if not is_safe_address(instance):
            raise FatalError(
                "Salesforce names an instance address that is not https", where=url, code="salesforce.sign_in"
            )
        # The identity address ends in the ids of the org and of the user.
        user = str(answer.get("id") or "").rpartition("/")[2]
        return _Session(answer["access_token"], instance, user or None)

    def _grant(self) -> dict[str, str]:
        auth = self._connection.auth
        if isinstance(auth, ClientCredentials):
            return {
                "grant_type": "client_credentials",
                "client_id": auth.client_id,
                "client_secret": auth.client_secret.reveal(),
            }
        claims: dict[str, Any] = {
            "iss": auth.client_id,
            "sub": auth.username,
            "aud": auth.audience,
            "exp": int(time.time()) + _ASSERTION_LIFE,
        }
        try:
            assertion = jwt.encode(claims, auth.private_key.reveal(), algorithm="RS256")
        except (ValueError, TypeError, jwt.InvalidKeyError):
            # Not chained: the library's message may quote the key.
            raise ConfigurationError(
                f"{auth.private_key.reference} is no RSA private key in PEM form",
                where="auth.private_key",
                hint="it begins with -----BEGIN PRIVATE KEY----- and has no passphrase",
                code="salesforce.private_key",
            ) from None
        learn(assertion, issued=True)
        return {"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": assertion}


def json_of(response: HttpResponse) -> Any:
    """An answer's body as JSON, or None when it is none."""
    try:
        return orjson.loads(response.content)
    except orjson.JSONDecodeError:
        return None


def describe_refusal(response: HttpResponse) -> str:
    """What an answer with an error status says, in one line: `INVALID_FIELD: No such column …`, else the status."""
    errors = refusals(response)
    return "; ".join(f"{code}: {message}" for code, message in errors) or f"status {response.status}"


def refusals(response: HttpResponse) -> list[tuple[str, str]]:
    """The error codes and messages of an answer, empty when its body has another form."""
    body = json_of(response)
    found = body if isinstance(body, list) else [body]
    return [
        (str(error.get("errorCode", "")), excerpt(str(error.get("message", "")), 500))
        for error in found
        if isinstance(error, dict) and error.get("errorCode")
    ]
