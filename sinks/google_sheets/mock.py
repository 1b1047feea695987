"""A stand-in for Google Sheets on loopback: the token endpoint of service accounts and version 4 of the Sheets API.

It speaks the protocol closely enough for `gspread` with `google-auth`: the key file names the stand-in's token endpoint, and
a `requests` adapter sends what goes to sheets.googleapis.com here
(https://developers.google.com/workspace/sheets/api/reference/rest, https://developers.google.com/identity/protocols/oauth2/service-account).
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jwt
import orjson
from aiohttp import web
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from sinks.google_sheets.mock_book import Spreadsheet
from sinks.google_sheets.mock_grid import BadRequestError
from trunkline.core.mock import Mock
from trunkline.core.settings import Duration, Settings, setting

ACCOUNT = "trunkline@mock-project.iam.gserviceaccount.com"
_GOOGLE_AUDIENCE = "https://oauth2.googleapis.com/token"
_STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_PATH = re.compile(r"^/v4/spreadsheets/(?P<book>[^/:]+)(?P<rest>.*)$", re.DOTALL)

Occasion = Literal["write", "read", "token"]


class GoogleSheetsMockSettings(Settings):
    """How the Google Sheets stand-in behaves."""

    spreadsheet: str = setting("mock-spreadsheet", description="The id of the spreadsheet that is there at the start.")
    worksheets: list[str] = setting(["Sheet1"], min_length=1, description="The titles of its worksheets.")
    private: list[str] = setting([], description="Ids of spreadsheets that are there, but not shared with the account.")
    writes: int = setting(0, ge=0, description="Write requests a quota window; 0 takes any number. Google grants 60.")
    reads: int = setting(0, ge=0, description="Read requests a quota window; 0 takes any number. Google grants 60.")
    window: Duration = setting(60.0, description="The length of a quota window.")
    retry_after: Duration | None = setting(
        None, description="What Retry-After says in a 429, in whole seconds. Google sends none."
    )
    max_rows: int = setting(
        0, ge=0, description="Rows that a worksheet may grow to before it counts as full; 0 is no limit."
    )
    key_file: Path | None = setting(
        None,
        description="Where the service account's key is written; kept if it is there. Default: a temporary folder.",
    )
    state: Path | None = setting(None, description="A file that keeps the spreadsheets over a restart.")


class GoogleSheetsMock(Mock):
    """Google Sheets with one spreadsheet and a throw-away service account.

    `requests` lists what came to the Sheets API: method, path, headers, size of the body. `fail` also knows `forbidden` (403),
    `missing` (404), `internal` (500), `garbage` (an answer that is no JSON), `reset` (the connection drops before any effect),
    `lost` (the effect happens, then the connection drops), and takes the `occasion`: `write`, `read` or `token`.
    """

    settings_type = GoogleSheetsMockSettings
    summary = "Google Sheets and its token endpoint, on loopback."

    def __init__(self, settings: GoogleSheetsMockSettings | None = None) -> None:
        super().__init__(settings or GoogleSheetsMockSettings())
        self.requests: list[dict[str, Any]] = []
        self._options: GoogleSheetsMockSettings = self.settings
        self._books: dict[str, Spreadsheet] = {}
        self._failures: dict[str, deque[str]] = {"write": deque(), "read": deque(), "token": deque()}
        self._spent: dict[str, deque[float]] = {"write": deque(), "read": deque()}
        self._tokens: set[str] = set()
        self._public_key: bytes = b""
        self._key_path: Path | None = None
        self._scratch: Path | None = None
        self._runner: web.AppRunner | None = None
        self._url = ""

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens. Port 0 takes a free one."""
        self._load()
        application = web.Application(client_max_size=32 * 1024 * 1024)
        application.router.add_post("/token", self._token)
        application.router.add_route("*", "/v4/{tail:.*}", self._api)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self._url = f"http://{host}:{self._runner.addresses[0][1]}"
        await asyncio.to_thread(self._write_key)

    async def stop(self) -> None:
        """Ends the server and its connections, and takes a temporary key file away."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        if self._scratch is not None:
            await asyncio.to_thread(shutil.rmtree, self._scratch, ignore_errors=True)
            self._scratch = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._url

    @property
    def key_file(self) -> Path:
        """The service account's key file, which names this stand-in as the token endpoint. Raises RuntimeError before the start."""
        if self._key_path is None:
            raise RuntimeError("the stand-in is not started")
        return self._key_path

    @property
    def environment(self) -> dict[str, str]:
        """`GOOGLE_SHEETS_URL`, `GOOGLE_SHEETS_KEY_FILE`, `GOOGLE_SHEETS_KEY` (the key itself) and `GOOGLE_SHEETS_ID`."""
        return {
            "GOOGLE_SHEETS_URL": self._url,
            "GOOGLE_SHEETS_KEY_FILE": str(self.key_file),
            "GOOGLE_SHEETS_KEY": self.key_file.read_text(encoding="utf-8"),
            "GOOGLE_SHEETS_ID": self._options.spreadsheet,
        }

    def contents(self) -> dict[str, list[list[Any]]]:
        """The rows of the spreadsheet's worksheets by their titles, unformatted."""
        return self.spreadsheet().contents()

    def formulas(self) -> list[str]:
        """All formulas that are live in the spreadsheet."""
        return self.spreadsheet().formulas()

    def spreadsheet(self) -> Spreadsheet:
        """The spreadsheet that is there at the start."""
        return self._books[self._options.spreadsheet]

    def expire_tokens(self) -> None:
        """Makes every access token that was given out invalid."""
        self._tokens.clear()

    def fail(self, times: int, kind: str = "unavailable", occasion: Occasion = "write") -> None:
        """The next `times` requests of that occasion fail, as Google fails."""
        self._failures[occasion].extend([kind] * times)

    # --- OAuth 2.0 ----------------------------------------------------------------------------------------------------

    async def _token(self, request: web.Request) -> web.StreamResponse:
        early = self._failed(request, self._next_failure("token"))
        if early is not None:
            return early
        form = await request.post()
        if form.get("grant_type") != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return _oauth_error("unsupported_grant_type", "the grant type must be the JWT bearer's")
        try:
            claims = jwt.decode(
                str(form.get("assertion", "")),
                self._public_key,
                algorithms=["RS256"],
                audience=[_GOOGLE_AUDIENCE, f"{self._url}/token"],
                options={"require": ["iss", "aud", "iat", "exp"]},
            )
        except jwt.PyJWTError as error:
            return _oauth_error("invalid_grant", f"Invalid JWT: {error}")
        if claims["iss"] != ACCOUNT or claims["exp"] - claims["iat"] > 3600:
            return _oauth_error("invalid_grant", "Invalid issuer or lifetime")
        if "https://www.googleapis.com/auth/spreadsheets" not in str(claims.get("scope", "")).split():
            return _oauth_error("invalid_scope", "no scope of Sheets is asked for")
        token = f"ya29.mock-{secrets.token_urlsafe(24)}"
        self._tokens.add(token)
        return web.json_response({"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def _write_key(self) -> None:
        """Writes the key file with this start's address, and keeps the private key of an earlier start."""
        path = self._options.key_file
        if path is None:
            self._scratch = Path(tempfile.mkdtemp(prefix="sheets-mock-"))
            path = self._scratch / "service-account.json"
        if path.exists():
            pem = str(orjson.loads(path.read_bytes())["private_key"]).encode()
            private = serialization.load_pem_private_key(pem, password=None, unsafe_skip_rsa_key_validation=True)
        else:
            private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            pem = private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        self._public_key = private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        key = {
            "type": "service_account",
            "project_id": "mock-project",
            "private_key_id": "mock-key",
            "private_key": pem.decode(),
            "client_email": ACCOUNT,
            "client_id": "100000000000000000000",
            "token_uri": f"{self._url}/token",
        }
        path.touch(mode=0o600)
        path.write_bytes(orjson.dumps(key))
        self._key_path = path

    # --- the Sheets API -----------------------------------------------------------------------------------------------

    async def _api(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(
            {
                "method": request.method,
                "path": request.path,
                "headers": dict(request.headers),
                "size": request.content_length or 0,
            }
        )
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self._tokens:
            return _error(401, "Request had invalid authentication credentials.")
        match = _PATH.match(request.path)
        if match is None:
            return _error(404, "Requested entity was not found.")
        occasion: Occasion = "read" if request.method == "GET" else "write"
        kind = self._next_failure(occasion)
        early = self._failed(request, kind) or self._over_quota(occasion)
        if early is not None:
            return early
        if match["book"] in self._options.private:
            return _error(403, "The caller does not have permission")
        book = self._books.get(match["book"])
        if book is None:
            return _error(404, "Requested entity was not found.")
        raw = await request.read()
        try:
            body = orjson.loads(raw) if raw else {}
            answer = book.call(request.method, match["rest"], request.query, request.query.getall("ranges", []), body)
        except (BadRequestError, orjson.JSONDecodeError) as error:
            return _error(400, str(error))
        if answer is None:
            return _error(404, "Requested entity was not found.")
        if occasion == "write":
            self._keep()
        return _dropped(request) if kind == "lost" else web.json_response(answer)

    def _next_failure(self, occasion: Occasion) -> str | None:
        waiting = self._failures[occasion]
        return waiting.popleft() if waiting else None

    def _failed(self, request: web.Request, kind: str | None) -> web.StreamResponse | None:
        answers: dict[str, Callable[[], web.StreamResponse]] = {
            "unavailable": lambda: _error(503, "The service is currently unavailable."),
            "internal": lambda: _error(500, "Internal error encountered."),
            "throttled": self._throttled,
            "denied": lambda: _error(401, "Request had invalid authentication credentials."),
            "forbidden": lambda: _error(403, "The caller does not have permission"),
            "missing": lambda: _error(404, "Requested entity was not found."),
            "garbage": lambda: web.Response(text="<html>sorry</html>", content_type="text/html"),
            "reset": lambda: _dropped(request),
        }
        return answers[kind]() if kind in answers else None

    def _over_quota(self, occasion: Occasion) -> web.StreamResponse | None:
        limit = self._options.writes if occasion == "write" else self._options.reads
        now, spent = time.monotonic(), self._spent[occasion]
        while spent and spent[0] <= now - self._options.window:
            spent.popleft()
        if limit and len(spent) >= limit:
            return self._throttled()
        spent.append(now)
        return None

    def _throttled(self) -> web.Response:
        after = self._options.retry_after
        headers = {} if after is None else {"Retry-After": str(round(after))}
        return _error(429, "Quota exceeded for quota metric 'Write requests' and limit 'per minute per user'.", headers)

    # --- what outlives a restart --------------------------------------------------------------------------------------

    def _load(self) -> None:
        path = self._options.state
        if path is not None and path.exists():
            kept = orjson.loads(path.read_bytes())
            self._books = {name: Spreadsheet.load(name, book) for name, book in kept.items()}
        elif not self._books:
            name = self._options.spreadsheet
            self._books = {name: Spreadsheet(name, self._options.worksheets)}
        for book in self._books.values():
            book.max_rows = self._options.max_rows

    def _keep(self) -> None:
        path = self._options.state
        if path is not None:
            scratch = path.with_suffix(".new")
            scratch.write_bytes(orjson.dumps({name: book.dump() for name, book in self._books.items()}))
            scratch.replace(path)


def _error(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    answer = {"error": {"code": code, "message": message, "status": _STATUS[code]}}
    return web.json_response(answer, status=code, headers=headers)


def _oauth_error(code: str, description: str) -> web.Response:
    return web.json_response({"error": code, "error_description": description}, status=400)


def _dropped(request: web.Request) -> web.Response:
    """Cuts the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)
