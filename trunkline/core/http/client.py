"""The one client that makes every outgoing request: checked addresses, limits, credentials, and errors told apart."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping
from dataclasses import replace
from threading import get_ident
from typing import Any, Final

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from trunkline.core.envelope import CORRELATION_HEADER
from trunkline.core.http.address import AddressPolicy
from trunkline.core.http.auth import AnyHttpAuth, Authorizer, OAuth2Auth, TokenAuthorizer, static_credentials
from trunkline.core.http.dial import tls_of
from trunkline.core.http.errors import AddressRefusedError, AnswerTooLargeError, NoAnswerError, NotSentError
from trunkline.core.http.faults import BadAnswerError, BadCodingError, Call, LostError, TooLongError, cause
from trunkline.core.http.oauth2 import fetch_token
from trunkline.core.http.options import HttpOptions
from trunkline.core.http.outgoing import Outgoing, Target
from trunkline.core.http.pool import Pool
from trunkline.core.http.response import HttpResponse
from trunkline.core.http.session import Session
from trunkline.core.http.url import check_header, check_headers, check_parsed, check_url, checked_text, place_of
from trunkline.core.jsonable import to_json_bytes
from trunkline.core.redaction import redact

MAX_REDIRECTS = 5
DIRECT = frozenset({"POST", "PUT", "PATCH", "DELETE", "HEAD"})
"""Methods whose requests go through the pool, which costs a fraction of aiohttp's session. What is read goes through the session:
its answers may be large, and it asks for compressed ones."""
FAULTS = (BadAnswerError, BadCodingError, LostError, TimeoutError, OSError, ValueError)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEPT_ACROSS_ORIGINS = frozenset(
    {"accept", "accept-language", "content-type", "user-agent", "x-correlation-id", "traceparent"}
)
_CACHED = 512
_METHOD = re.compile(r"[A-Z]{1,20}")


class _Unset:
    """Tells `json=None`, which is a body, from no body."""


_UNSET: Final = _Unset()


class HttpClient:
    """Makes requests for one connection.

    `base_url` goes before every URL that is not absolute. Credentials go to its origin only (to every origin when there is no
    `base_url`), never to where a redirect or a link points elsewhere. `auth` is a settings object or an `Authorizer`.

    A client belongs to the event loop of its first request. Constructing one reveals secrets and may raise
    `ConfigurationError`; it makes no request.
    """

    def __init__(
        self,
        options: HttpOptions | None = None,
        *,
        auth: AnyHttpAuth | Authorizer | None = None,
        base_url: str | None = None,
    ) -> None:
        self.options = options if options is not None else HttpOptions()
        self._policy = AddressPolicy(self.options.allow_private)
        self._targets: dict[str, Target] = {}
        self._pool: Pool | None = None
        self._session: Session | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._closed = False
        self._base = base_url.rstrip("/") if base_url else ""
        self._origin = check_url(self._base).origin() if self._base else None
        self._authorizer: Authorizer | None = None
        self._static: dict[str, str] = {}
        self._query: dict[str, str] = {}
        if isinstance(auth, OAuth2Auth):
            self._authorizer = self._oauth2(auth)
        elif auth is None or isinstance(auth, AnyHttpAuth):
            self._static, self._query = static_credentials(auth)
        else:
            self._authorizer = auth

    async def __aenter__(self) -> HttpClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends all connections. Requests under way fail with `NoAnswerError`. May be called again."""
        self._closed = True
        for way in (self._pool, self._session):
            if way is not None:
                await way.close()
        self._pool = self._session = None

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes | None = None,
        json: Any = _UNSET,
        correlation_id: str | None = None,
        traceparent: str | None = None,
        timeout: float | None = None,
        follow_redirects: bool = False,
    ) -> HttpResponse:
        """Sends one request and reads the whole answer, whatever its status.

        `timeout` (seconds, in all) replaces the options'. With an `Authorizer`, a 401 is answered once by new credentials. At
        most five redirects are followed; a 303 (and, as browsers do, a 301 or 302 after POST) turns into GET.

        Raises `AddressRefusedError` (not sent; someone has to change something), `NotSentError` (not sent; may pass),
        `NoAnswerError` (sent, effect unknown), `FatalError` (the token server refuses us).
        """
        target = self._targets.get(url) or self._target(url)
        if not _METHOD.fullmatch(method):
            raise AddressRefusedError(f"{method[:50]!r} is no HTTP method", hint="use capital letters, such as POST")
        sent: CIMultiDict[str] = CIMultiDict(self._static if target.own else ())
        if correlation_id:
            sent[CORRELATION_HEADER] = correlation_id
        if traceparent:
            sent["traceparent"] = traceparent
        if not isinstance(json, _Unset):
            content = to_json_bytes(json)
            sent["Content-Type"] = "application/json"
        if headers:
            sent.update(headers)
        check_headers(sent)
        if params or (self._query and target.own):
            extra = {**(params or {}), **(self._query if target.own else {})}
            target = Target(target.url.extend_query(extra), own=target.own)
        seconds = self.options.timeout if timeout is None else timeout
        outgoing = Outgoing(method, target, sent, content, seconds, follow_redirects)
        if self._authorizer is not None and target.own:
            return await self._authorized(self._authorizer, outgoing)
        return await (self._exchange(outgoing) if follow_redirects else self._send(outgoing))

    async def _authorized(self, authorizer: Authorizer, outgoing: Outgoing) -> HttpResponse:
        credentials = await authorizer.headers()
        response = await self._exchange(_with_headers(outgoing, credentials))
        if response.status == 401 and authorizer.renew(credentials):
            response = await self._exchange(_with_headers(outgoing, await authorizer.headers()))
        return response

    async def _exchange(self, outgoing: Outgoing) -> HttpResponse:
        """The request and, where wanted, its redirects, within the time-out for each of them."""
        response = await self._send(outgoing)
        if not outgoing.follow:
            return response
        for _ in range(MAX_REDIRECTS):
            if not _redirects(response):
                return response
            outgoing = _redirected(outgoing, response)
            response = await self._send(outgoing)
        if _redirects(response):
            raise NoAnswerError(f"{outgoing.name}: more than {MAX_REDIRECTS} redirects", code="http.redirects")
        return response

    async def _send(self, outgoing: Outgoing) -> HttpResponse:
        if self._session is None or not self._at_home():
            self._open()
        assert self._pool is not None
        assert self._session is not None
        call = Call(outgoing.target.host)
        way = self._pool if outgoing.method in DIRECT and outgoing.framed_by_us else self._session
        try:
            answer = await way.exchange(outgoing, call)
        except TooLongError as error:
            raise AnswerTooLargeError(
                f"{outgoing.name} answered {error.status} with more than {self.options.max_response} bytes",
                status=error.status,
                hint="ask for less at once, or raise http.max_response",
            ) from None
        except (aiohttp.ClientError, *FAULTS) as error:
            raise self._failure(error, call, outgoing) from None
        return HttpResponse(answer.status, answer.headers, answer.body, request=outgoing.name, reason=answer.reason)

    def _failure(
        self, error: Exception, call: Call, outgoing: Outgoing
    ) -> AddressRefusedError | NotSentError | NoAnswerError:
        name, seconds = outgoing.name, outgoing.seconds
        if call.connected:
            if isinstance(error, TimeoutError):
                return NoAnswerError(f"{name}: sent, but no complete answer came within {seconds:g} s")
            return NoAnswerError(redact(f"{name}: sent, but no complete answer came: {cause(error)}"))
        if call.refused:
            return AddressRefusedError(
                f"{name}: {call.refused}", hint="if it is meant, name the host or its network in http.allow_private"
            )
        if isinstance(error, TimeoutError):
            return NotSentError(f"{name}: no connection within {min(seconds, self.options.connect_timeout):g} s")
        if isinstance(error, ValueError) and not isinstance(error, ssl.SSLError):  # a bad certificate is both
            return AddressRefusedError(f"{name}: the request can't be built ({type(error).__name__})")
        return NotSentError(redact(f"{name}: no connection: {cause(error)}"))

    def _target(self, url: str) -> Target:
        if not self._base or url.startswith(("http://", "https://")):
            full = url
        elif not url or url.startswith("?"):
            full = self._base + url
        else:
            full = f"{self._base}/{url.lstrip('/')}"
        checked = check_url(full)
        target = Target(checked, own=self._origin is None or checked.origin() == self._origin)
        if len(self._targets) >= _CACHED:
            self._targets.clear()
        self._targets[url] = target
        return target

    def _open(self) -> None:
        if self._closed:
            raise RuntimeError("the HTTP client is closed")
        if self._session is not None:
            raise RuntimeError("an HTTP client belongs to one event loop: make another one for this loop")
        context = tls_of(self.options.ca_file)
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()
        self._pool = Pool(self.options, self._policy, context)
        self._session = Session(self.options, self._policy, context)

    def _at_home(self) -> bool:
        """Whether this is the event loop of the first request: asked without the system call of `get_running_loop`."""
        return self._loop is not None and self._thread == get_ident() and self._loop.is_running()

    def _oauth2(self, settings: OAuth2Auth) -> TokenAuthorizer:
        token_server = Target(check_url(settings.token_url), own=False)
        settings.client_secret.reveal()  # one that is missing is said now, and one that is there is known to be a secret

        async def post(headers: dict[str, str], content: bytes) -> HttpResponse:
            return await self._send(Outgoing("POST", token_server, CIMultiDict(headers), content, self.options.timeout))

        return TokenAuthorizer(lambda: fetch_token(settings, post))


def _with_headers(outgoing: Outgoing, credentials: Mapping[str, str]) -> Outgoing:
    headers = outgoing.headers.copy()
    for name, value in credentials.items():
        check_header(name, value)
        headers[name] = value
    return replace(outgoing, headers=headers)


def _redirects(response: HttpResponse) -> bool:
    return response.status in _REDIRECTS and bool(response.headers.get("Location"))


def _redirected(outgoing: Outgoing, response: HttpResponse) -> Outgoing:
    """The request that follows a redirect (RFC 9110, section 15.4). Across origins it carries no credentials."""
    origin, status = outgoing.target, response.status
    location = checked_text(response.headers["Location"], f"the redirect of {origin.place}")
    try:
        url = origin.url.join(URL(location))
    except ValueError:
        raise AddressRefusedError(f"the redirect of {origin.place} can't be read") from None
    url = check_parsed(url, f"the redirect of {origin.place}")
    if origin.url.scheme == "https" and url.scheme == "http":
        raise AddressRefusedError(f"{origin.place} redirects from https to http, to {place_of(url)}")
    headers, method, content = outgoing.headers.copy(), outgoing.method, outgoing.content
    if url.origin() != origin.url.origin():
        headers = CIMultiDict((name, value) for name, value in headers.items() if name.lower() in _KEPT_ACROSS_ORIGINS)
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, content = "GET", None
        headers.popall("Content-Type", None)
    return replace(outgoing, method=method, content=content, headers=headers, target=Target(url, own=False))
