"""The one client that makes every outgoing request: checked addresses, limits, credentials, and errors told apart."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import get_ident
from typing import Any, Final

import aiohttp
from aiohttp import ClientResponse
from aiohttp.client import ClientTimeout
from multidict import CIMultiDict
from yarl import URL

from trunkline.core.envelope import CORRELATION_HEADER
from trunkline.core.http.address import AddressPolicy
from trunkline.core.http.auth import AnyHttpAuth, Authorizer, OAuth2Auth, TokenAuthorizer, static_credentials
from trunkline.core.http.connection import Call, LostError, cause, current_call, open_session
from trunkline.core.http.errors import AddressRefusedError, AnswerTooLargeError, NoAnswerError, NotSentError
from trunkline.core.http.oauth2 import fetch_token
from trunkline.core.http.options import HttpOptions
from trunkline.core.http.response import HttpResponse
from trunkline.core.http.url import check_header, check_headers, check_parsed, check_url, checked_text, place_of
from trunkline.core.jsonable import to_json_bytes
from trunkline.core.secret import redact

MAX_REDIRECTS = 5

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_KEPT_ACROSS_ORIGINS = frozenset(
    {"accept", "accept-language", "content-type", "user-agent", "x-correlation-id", "traceparent"}
)
_CACHED = 512
_AT_ONCE = 2**20
_METHOD = re.compile(r"[A-Z]{1,20}")


class _Unset:
    """Tells `json=None`, which is a body, from no body."""


_UNSET: Final = _Unset()


class _Target:
    """A URL that was checked. `own` says whether the connection's credentials may go there, `place` names it in messages."""

    __slots__ = ("host", "own", "place", "url")

    def __init__(self, url: URL, *, own: bool) -> None:
        self.url = url
        self.host = url.host or ""
        self.own = own
        self.place = place_of(url)


@dataclass(slots=True)
class _Outgoing:
    """One request: what is sent, within how many seconds, and whether redirects are followed."""

    method: str
    target: _Target
    headers: CIMultiDict[str]
    content: bytes | None
    seconds: float
    follow: bool = False

    @property
    def name(self) -> str:
        return f"{self.method} {self.target.place}"


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
        self._timeouts: dict[float, ClientTimeout] = {}
        self._targets: dict[str, _Target] = {}
        self._session: aiohttp.ClientSession | None = None
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
        session, self._session = self._session, None
        if session is not None:
            await session.close()

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
            target = _Target(target.url.extend_query(extra), own=target.own)
        seconds = self.options.timeout if timeout is None else timeout
        outgoing = _Outgoing(method, target, sent, content, seconds, follow_redirects)
        if self._authorizer is not None and target.own:
            return await self._authorized(self._authorizer, outgoing)
        return await (self._exchange(outgoing) if follow_redirects else self._send(outgoing))

    async def _authorized(self, authorizer: Authorizer, outgoing: _Outgoing) -> HttpResponse:
        credentials = await authorizer.headers()
        response = await self._exchange(_with_headers(outgoing, credentials))
        if response.status == 401 and authorizer.renew(credentials):
            response = await self._exchange(_with_headers(outgoing, await authorizer.headers()))
        return response

    async def _exchange(self, outgoing: _Outgoing) -> HttpResponse:
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

    async def _send(self, outgoing: _Outgoing) -> HttpResponse:
        session = self._session
        if session is None or not self._at_home():
            session = self._opened()
        target = outgoing.target
        timeout = self._timeouts.get(outgoing.seconds) or self._timeout(outgoing.seconds)
        call = Call(target.host)
        current_call.set(call)
        answer: ClientResponse | None = None
        try:
            answer = await session.request(
                outgoing.method,
                target.url,
                data=_body(outgoing.content),
                headers=outgoing.headers,
                allow_redirects=False,
                timeout=timeout,
                middlewares=_middlewares(outgoing.method),
            )
            body = await self._body(answer, outgoing)
        except (aiohttp.ClientError, LostError, TimeoutError, OSError, ValueError) as error:
            raise self._failure(error, call, outgoing) from None
        finally:
            # A connection whose answer was read to its end has gone back to the pool already; any other one ends here.
            if answer is not None:
                answer.close()
        return HttpResponse(answer.status, answer.headers, body, request=outgoing.name, reason=answer.reason or "")

    async def _body(self, answer: ClientResponse, outgoing: _Outgoing) -> bytes:
        limit = self.options.max_response
        content = answer.content
        chunk = await content.readany()
        size = len(chunk)
        if size <= limit and content.at_eof():
            return chunk
        chunks = [chunk]
        while chunk and size <= limit:
            chunk = await content.readany()
            chunks.append(chunk)
            size += len(chunk)
        if size > limit:
            raise AnswerTooLargeError(
                f"{outgoing.name} answered {answer.status} with more than {limit} bytes",
                status=answer.status,
                hint="ask for less at once, or raise http.max_response",
            )
        return b"".join(chunks)

    def _failure(
        self, error: Exception, call: Call, outgoing: _Outgoing
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
        if isinstance(error, ValueError):
            return AddressRefusedError(f"{name}: the request can't be built ({type(error).__name__})")
        return NotSentError(redact(f"{name}: no connection: {cause(error)}"))

    def _target(self, url: str) -> _Target:
        if not self._base or url.startswith(("http://", "https://")):
            full = url
        elif not url or url.startswith("?"):
            full = self._base + url
        else:
            full = f"{self._base}/{url.lstrip('/')}"
        checked = check_url(full)
        target = _Target(checked, own=self._origin is None or checked.origin() == self._origin)
        if len(self._targets) >= _CACHED:
            self._targets.clear()
        self._targets[url] = target
        return target

    def _timeout(self, seconds: float) -> ClientTimeout:
        made = ClientTimeout(total=seconds, sock_connect=min(seconds, self.options.connect_timeout))
        if len(self._timeouts) >= _CACHED:
            self._timeouts.clear()
        self._timeouts[seconds] = made
        return made

    def _opened(self) -> aiohttp.ClientSession:
        if self._closed:
            raise RuntimeError("the HTTP client is closed")
        if self._session is not None:
            raise RuntimeError("an HTTP client belongs to one event loop: make another one for this loop")
        self._loop, self._thread = asyncio.get_running_loop(), get_ident()
        self._session = open_session(self.options, self._policy)
        return self._session

    def _at_home(self) -> bool:
        """Whether this is the event loop of the first request: asked without the system call of `get_running_loop`."""
        return self._loop is not None and self._thread == get_ident() and self._loop.is_running()

    def _oauth2(self, settings: OAuth2Auth) -> TokenAuthorizer:
        token_server = _Target(check_url(settings.token_url), own=False)

        async def post(headers: dict[str, str], content: bytes) -> HttpResponse:
            return await self._send(
                _Outgoing("POST", token_server, CIMultiDict(headers), content, self.options.timeout)
            )

        return TokenAuthorizer(lambda: fetch_token(settings, post))


def _body(content: bytes | None) -> bytes | io.BytesIO | None:
    """A large body goes piece by piece: written at once it would hold up everything else on the event loop."""
    return io.BytesIO(content) if content is not None and len(content) > _AT_ONCE else content


def _middlewares(method: str) -> tuple[aiohttp.ClientMiddlewareType, ...] | None:
    """None for the session's own, which keep aiohttp from sending again: it does so with idempotent methods only."""
    return () if method in ("POST", "PATCH") else None


def _with_headers(outgoing: _Outgoing, credentials: Mapping[str, str]) -> _Outgoing:
    headers = outgoing.headers.copy()
    for name, value in credentials.items():
        check_header(name, value)
        headers[name] = value
    return replace(outgoing, headers=headers)


def _redirects(response: HttpResponse) -> bool:
    return response.status in _REDIRECTS and bool(response.headers.get("Location"))


def _redirected(outgoing: _Outgoing, response: HttpResponse) -> _Outgoing:
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
    return replace(outgoing, method=method, content=content, headers=headers, target=_Target(url, own=False))
