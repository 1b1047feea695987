"""The `http_poll` source: one request a poll, every page a batch with a position of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from connectors.http_poll.answer import json_items, line_items
from connectors.http_poll.items import ItemReader, item_digest
from connectors.http_poll.paging import next_page, page_params
from connectors.http_poll.position import MAX_SEEN, Standing, Sweep
from connectors.http_poll.settings import HttpPollConnection, HttpPollSettings, LinkPaging, PagePaging
from trunkline.core.contracts import PluginContext, Position, Source, SourceBatch
from trunkline.core.envelope import uuid7
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.http import ApiKeyAuth, HttpClient, HttpResponse, check_header, check_url, classify_status
from trunkline.core.template import Template, compile_template
from trunkline.core.uses import FieldUse, Use
from trunkline.core.verdicts import Ok, Retry


class HttpPollSource(Source):
    """Asks an HTTP API for what is new and publishes each item."""

    settings_type = HttpPollSettings
    connection_type = HttpPollConnection
    summary = "Polls an HTTP API: pages, incremental cursor, ETag, rate limit."

    def __init__(self, settings: HttpPollSettings, connection: HttpPollConnection) -> None:
        super().__init__(settings, connection)
        self._base = check_url(connection.base_url)
        for name, value in settings.headers.items():
            check_header(name, value)
        self._params = {
            name: compile_template(text, f"config.params.{name}", names=("cursor",))
            for name, text in settings.params.items()
        }
        self._body = (
            None if settings.body is None else compile_template(settings.body, "config.body", names=("cursor",))
        )
        self._check_cursor()
        self._items = ItemReader(settings)
        auth = connection.auth
        self._secret_param = auth.name if isinstance(auth, ApiKeyAuth) and auth.place == "query" else None
        self._client: HttpClient | None = None
        self._free_at = 0.0

    def uses(self) -> Sequence[Use]:
        """The fields of an item that the settings name."""
        settings: HttpPollSettings = self.settings
        named = {
            "id": settings.id,
            "time": settings.time,
            "key": settings.key,
            "correlation": settings.correlation,
            "incremental.field": settings.incremental.field if settings.incremental is not None else None,
        }
        return [FieldUse(tuple(path.split(".")), f"config.{name}") for name, path in named.items() if path]

    async def open(self, context: PluginContext) -> None:
        """Reveals the secrets. The first poll is the probe."""
        connection: HttpPollConnection = self.connection
        self._client = HttpClient(connection.http, auth=connection.auth, base_url=connection.base_url)

    async def poll(self, split: str, position: Position | None) -> SourceBatch:
        """One page. Raises `RetriableError` (with the server's `Retry-After`) and `FatalError` (4xx: a person must look)."""
        settings: HttpPollSettings = self.settings
        standing = Standing.from_position(position)
        await self._turn()
        first = standing.sweep is None
        response = await self._ask(standing)
        if response.status == 304 and first:
            return SourceBatch(pause=settings.interval)
        self._judge(response)
        if standing.sweep is None:
            standing.sweep = Sweep(high=standing.cursor, seen=set() if standing.cursor is None else set(standing.seen))
        sweep = standing.sweep
        if settings.format == "json":
            found, answer = json_items(response, settings.items)
        else:
            found, answer = line_items(response), None
        unread = self._unread(found, sweep)
        if unread is None:
            return SourceBatch(position=standing.to_position())
        events, rejected = self._items.read(unread, standing, sweep, response.request)
        sweep.page = next_page(
            settings.pagination,
            sweep.page,
            len(found),
            answer,
            _joined(response, "Link"),
            self._base,
            size=sweep.size,
            secret_param=self._secret_param,
        )
        sweep.pages += 1
        more = sweep.page is not None
        if not more:
            self._finish(standing, sweep, response)
        return SourceBatch(
            events=events,
            rejected=rejected,
            position=standing.to_position(),
            pause=0.0 if more else settings.interval,
        )

    def _unread(self, found: list[Any], sweep: Sweep) -> list[Any] | None:
        """The items of a page that were not read yet; None where the first page has to be read once more before.

        Where nobody says how many items a numbered page holds, a first page may have grown after it was read, and what came onto it
        would lie under the cursor, never to be asked for again. That there are items on the second page proves that the first one
        is full by now: read once more, it gives what it had not, and the size of a page.
        """
        paging = self.settings.pagination
        if not isinstance(paging, PagePaging) or paging.size is not None or sweep.size is not None:
            return found
        if sweep.again:
            sweep.again, sweep.size = False, len(found)
            unread = [item for item in found if item_digest(item) not in sweep.first]
            sweep.first = set()
            return unread
        if sweep.page is None:
            if len(found) > MAX_SEEN:  # more than a position can hold: whoever serves such pages knows of no others
                sweep.size = len(found)
            else:
                sweep.first = {item_digest(item) for item in found}
            return found
        if not found:
            return found
        sweep.page, sweep.again = None, True
        return None

    async def close(self) -> None:
        """Ends the connections."""
        if self._client is not None:
            await self._client.close()

    async def _ask(self, standing: Standing) -> HttpResponse:
        assert self._client is not None
        settings: HttpPollSettings = self.settings
        headers = dict(settings.headers)
        headers.setdefault("Accept", "application/json" if settings.format == "json" else "application/x-ndjson")
        page = None if standing.sweep is None else standing.sweep.page
        cursor = self._cursor(standing)
        url, params = settings.path, self._rendered(cursor)
        if isinstance(settings.pagination, LinkPaging) and page is not None:
            url, params = page, {}
        else:
            params |= page_params(settings.pagination, page)
        if standing.sweep is None:
            if standing.etag is not None:
                headers["If-None-Match"] = standing.etag
            if standing.modified is not None:
                headers["If-Modified-Since"] = standing.modified
        content = None
        if self._body is not None:
            content = self._body.render_with({"cursor": cursor}).encode()
            headers.setdefault("Content-Type", "application/json")
        return await self._client.request(
            settings.method,
            url,
            headers=headers,
            params=params,
            content=content,
            correlation_id=uuid7(),
            follow_redirects=settings.method == "GET",
        )

    def _cursor(self, standing: Standing) -> Any:
        incremental = self.settings.incremental
        if incremental is None:
            return None
        return incremental.initial if standing.cursor is None else standing.cursor

    def _rendered(self, cursor: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for name, template in self._params.items():
            text = template.render_with({"cursor": cursor})
            if text or not template.names:
                found[name] = text
        incremental = self.settings.incremental
        if incremental is not None and incremental.param is not None and cursor is not None:
            found[incremental.param] = str(cursor)
        return found

    def _judge(self, response: HttpResponse) -> None:
        """Returns for 2xx. Nothing that another status may hold is taken for data."""
        if response.status == 304:
            raise RetriableError(f"{response.request} answered 304 to an unconditional request", code="http_poll.304")
        verdict = classify_status(response.status, response.summary, response.retry_after())
        if isinstance(verdict, Retry):
            raise RetriableError(verdict.reason, after=verdict.after, code="http_poll.unavailable")
        if not isinstance(verdict, Ok):
            raise FatalError(
                response.summary,
                hint="look at config and connection; when a page has expired, reset the position",
                code=f"http.{response.status}",
            )

    def _finish(self, standing: Standing, sweep: Sweep, response: HttpResponse) -> None:
        # An answer's ETag speaks of one question: it is kept when the next one is the same, and had a single page.
        same_question = sweep.pages == 1 and sweep.high == standing.cursor
        standing.etag = response.headers.get("ETag") if same_question else None
        standing.modified = response.headers.get("Last-Modified") if same_question else None
        standing.cursor = sweep.high
        standing.seen = sweep.seen | sweep.refused
        standing.sweep = None

    async def _turn(self) -> None:
        """Waits until the rate allows another request."""
        if self.settings.rate is None:
            return
        now = asyncio.get_running_loop().time()
        wait = self._free_at - now
        self._free_at = max(now, self._free_at) + 1.0 / self.settings.rate
        if wait > 0:
            await asyncio.sleep(wait)

    def _check_cursor(self) -> None:
        settings: HttpPollSettings = self.settings
        templates: list[Template] = [*self._params.values(), *([self._body] if self._body else [])]
        used = any("cursor" in template.names for template in templates)
        if used and settings.incremental is None:
            raise ConfigurationError("a template uses `cursor`, but `incremental` is not set", where="config")
        if settings.incremental is not None and settings.incremental.param is None and not used:
            raise ConfigurationError(
                "the cursor is sent nowhere", where="config.incremental", hint="set `param`, or use `cursor` in params"
            )


def _joined(response: HttpResponse, name: str) -> str:
    getall = getattr(response.headers, "getall", None)
    return ", ".join(getall(name, ())) if getall is not None else response.headers.get(name, "")
