"""The stand-in's HTTP server: tokens, REST resources, API limits, expired sessions, and failures on demand."""

from __future__ import annotations

import re
import secrets
from collections import deque
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote

import orjson
from aiohttp import web

from sinks.salesforce.mock.bulk import IngestApi
from sinks.salesforce.mock.oauth import GrantError, TokenIssuer
from sinks.salesforce.mock.org import Org
from sinks.salesforce.mock.rest import VERSIONS, Answer, Call, RestApi
from sinks.salesforce.mock.schema import DEFAULT_OBJECTS, ObjectSpec
from sinks.salesforce.mock.values import RequestError
from trunkline.core.mock import Mock
from trunkline.core.settings import Settings, setting

FailureKind = Literal[
    "unavailable", "throttled", "denied", "limit", "lock", "reset", "drop", "garbage", "short", "error"
]
FAILURES: dict[str, str] = {
    "unavailable": "503 SERVER_UNAVAILABLE with Retry-After, no effect",
    "throttled": "429 with Retry-After, no effect",
    "denied": "401 INVALID_SESSION_ID, no effect",
    "limit": "403 REQUEST_LIMIT_EXCEEDED, no effect",
    "lock": "200, the first record refused with UNABLE_TO_LOCK_ROW",
    "reset": "the connection is cut before any effect",
    "drop": "the connection is cut after the effect",
    "garbage": "200 after the effect, with a body that is no JSON",
    "short": "200 after the effect, with the last result missing",
    "error": "500 UNKNOWN_EXCEPTION, no effect",
}
_DATA_PATH = re.compile(r"^/services/data/v(\d+\.\d)(?:/(.*))?$")
_LARGEST_BODY = 128 * 1024 * 1024
USER_ID = "005000000000001AAA"


class MockSettings(Settings):
    """What the stand-in can be told."""

    objects: dict[str, ObjectSpec] = setting(
        default_factory=lambda: dict(DEFAULT_OBJECTS), description="The org's objects by API name."
    )
    state: str | None = setting(
        None, description="A file that keeps the records over a restart; without one they live in memory."
    )
    client_id: str = setting("trunkline", description="The connected app's consumer key.")
    client_secret: str | None = setting(
        None, description="The connected app's consumer secret; without one a random one is made.", repr=False
    )
    username: str = setting("bus@example.com", description="The user of the JWT bearer and password flows.")
    public_key: str | None = setting(
        None,
        description="The app's RSA public key (PEM) that JWT assertions are checked with; without one they are refused.",
    )
    api_limit: int = setting(15_000, description="API requests a day, as Sforce-Limit-Info reports them.", gt=0)


class SalesforceMock(Mock):
    """A Salesforce org on loopback. `org` has its records and counts, `ingest` its bulk jobs; `api_used` can be set."""

    settings_type = MockSettings
    summary = "A Salesforce org: OAuth2, sObject REST, collections, bulk jobs, SOQL and limits."

    def __init__(self, settings: MockSettings | None = None) -> None:
        super().__init__(settings or MockSettings())
        self.org = Org(self.settings.objects, Path(self.settings.state) if self.settings.state else None)
        secret = self.settings.client_secret or secrets.token_urlsafe(24)
        self.tokens = TokenIssuer(
            self.settings.client_id, secret, self.settings.username, secret, public_key=self.settings.public_key
        )
        self.api_used = 0
        self.api_limit: int = self.settings.api_limit
        self.calls: list[Call] = []
        self.ingest = IngestApi(self.org, USER_ID)
        self._failures: deque[tuple[str, str | None]] = deque()
        self._rest = RestApi(self.org, self._limits)
        self._runner: web.AppRunner | None = None
        self._address = ("127.0.0.1", 0)

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens."""
        app = web.Application(client_max_size=_LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port).start()
        self._address = (host, self._runner.addresses[0][1])
        self.tokens.audiences = (self.url,)
        self.ingest.start()

    async def stop(self) -> None:
        """Ends the server, its connections and its sessions, but keeps its records and jobs."""
        await self.ingest.stop()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self.tokens.expire()

    @property
    def url(self) -> str:
        """The login address and the instance address, which are one here."""
        return f"http://{self._address[0]}:{self._address[1]}"

    @property
    def port(self) -> int:
        """Where it listens or last listened."""
        return self._address[1]

    @property
    def environment(self) -> dict[str, str]:
        """The address and the throw-away credentials."""
        return {
            "SF_URL": self.url,
            "SF_CLIENT_ID": self.tokens.client_id,
            "SF_CLIENT_SECRET": self.tokens.client_secret,
            "SF_USERNAME": self.tokens.username,
        }

    def contents(self) -> Any:
        """The live records by object, for the objects that have some."""
        found = {name: self.org.records(name) for name in self.org.objects}
        return {name: records for name, records in found.items() if records}

    def fail(self, times: int, kind: str = "unavailable", *, method: str | None = None) -> None:
        """The next `times` write requests, of one method where it is named, fail as `FAILURES` says. Raises ValueError for
        an unknown kind."""
        if kind not in FAILURES:
            raise ValueError(f"unknown failure {kind!r}: one of {', '.join(FAILURES)}")
        self._failures.extend([(kind, method)] * times)

    def expire_sessions(self) -> None:
        """All access tokens given so far are refused with 401 INVALID_SESSION_ID."""
        self.tokens.expire()

    # --- requests ---

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path.partition("?")[0]
        if path == "/services/oauth2/token":
            return await self._token(request)
        if path.rstrip("/") == "/services/data":
            return _json(200, [{"label": name, "url": f"/services/data/v{name}", "version": name} for name in VERSIONS])
        match = _DATA_PATH.match(path)
        try:
            if match is None or match.group(1) not in VERSIONS:
                raise RequestError(404, "NOT_FOUND", "The requested resource does not exist")
            if not self.tokens.knows(request.headers.get("Authorization")):
                raise RequestError(401, "INVALID_SESSION_ID", "Session expired or invalid")
            return await self._data(request, match.group(1), match.group(2) or "")
        except RequestError as error:
            return _json(error.status, error.body(), **self._usage())

    async def _token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        try:
            token = self.tokens.grant(form, request.headers.get("Authorization"))
        except GrantError as error:
            return _json(400, {"error": error.error, "error_description": error.description})
        answer = {
            "access_token": token,
            "instance_url": self.url,
            "id": f"{self.url}/id/00D000000000001EAA/{USER_ID}",
            "token_type": "Bearer",
            "issued_at": "0",
            "scope": "api",
        }
        return _json(200, answer)

    async def _data(self, request: web.Request, version: str, rest: str) -> web.StreamResponse:
        self.api_used += 1
        raw = await request.read()
        table = request.content_type == "text/csv"
        try:
            body = orjson.loads(raw) if raw and not table else None
        except orjson.JSONDecodeError as error:
            raise RequestError(400, "JSON_PARSER_ERROR", f"Unexpected input: {error}") from error
        # A stored value may hold an encoded slash, so the path is cut before it is decoded.
        segments = tuple(unquote(part) for part in rest.split("/") if part)
        call = Call(request.method, version, segments, dict(request.query), body, request.headers)
        self.calls.append(call)
        kind = self._next_failure(call)
        refusal = _refusal(kind)
        if refusal is not None:
            status, code, message, headers = refusal
            return _json(status, RequestError(status, code, message).body(), **headers, **self._usage())
        if kind == "reset":
            return _cut(request)
        if segments[:2] == ("jobs", "ingest"):
            answer = self.ingest.answer(call, raw)
        else:
            answer = self._locked(call) if kind == "lock" else self._rest.answer(call)
        if kind == "drop":
            return _cut(request)
        if kind == "garbage":
            return web.Response(status=200, text="<html>maintenance</html>", content_type="text/html")
        if kind == "short":
            answer = Answer(answer.status, answer.body[:-1])
        if answer.body is None:
            return web.Response(status=answer.status, headers=self._usage())
        if isinstance(answer.body, bytes):
            return web.Response(body=answer.body, content_type="text/csv", charset="utf-8", headers=self._usage())
        return _json(answer.status, answer.body, **self._usage())

    def _next_failure(self, call: Call) -> str:
        if not call.writes or not self._failures or self._failures[0][1] not in (None, call.method):
            return ""
        return self._failures.popleft()[0]

    def _locked(self, call: Call) -> Answer:
        if not isinstance(call.body, dict) or not call.body.get("records"):
            raise RequestError(400, "UNABLE_TO_LOCK_ROW", "unable to obtain exclusive access to this record")
        rest = {**call.body, "records": call.body["records"][1:]}
        answer = self._rest.answer(Call(call.method, call.version, call.segments, call.query, rest, call.headers))
        error = {
            "statusCode": "UNABLE_TO_LOCK_ROW",
            "message": "unable to obtain exclusive access to this record",
            "fields": [],
        }
        return Answer(200, [{"success": False, "errors": [error]}, *answer.body])

    def _usage(self) -> dict[str, str]:
        return {"Sforce-Limit-Info": f"api-usage={self.api_used}/{self.api_limit}"}

    def _limits(self) -> dict[str, Any]:
        return {"DailyApiRequests": {"Max": self.api_limit, "Remaining": max(0, self.api_limit - self.api_used)}}


def _refusal(kind: str) -> tuple[int, str, str, dict[str, str]] | None:
    match kind:
        case "unavailable":
            return 503, "SERVER_UNAVAILABLE", "Server is busy", {"Retry-After": "1"}
        case "throttled":
            return 429, "REQUEST_LIMIT_EXCEEDED", "Too many requests", {"Retry-After": "2"}
        case "denied":
            return 401, "INVALID_SESSION_ID", "Session expired or invalid", {}
        case "limit":
            return 403, "REQUEST_LIMIT_EXCEEDED", "TotalRequests Limit exceeded.", {}
        case "error":
            return 500, "UNKNOWN_EXCEPTION", "An unexpected error occurred.", {}
    return None


def _cut(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


def _json(status: int, body: Any, **headers: str) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(body), content_type="application/json", headers=headers)
