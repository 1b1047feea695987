"""A stand-in for Slack on loopback: the Web API methods that post and read messages, and incoming webhooks.

It speaks the protocol closely enough for `slack_sdk`'s `WebClient` and `WebhookClient`: form, JSON and query arguments,
`ok: false` answers with status 200, `429` with `Retry-After`, plain-text webhook answers
(https://docs.slack.dev/apis/web-api, https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks).
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Literal

import orjson
from aiohttp import web

from sinks.slack.mock_blocks import block_faults
from trunkline.core.mock import Mock
from trunkline.core.settings import Duration, Settings, setting

MAX_TEXT = 40_000
"""Characters of a message's text (https://docs.slack.dev/changelog/2018-truncating-really-long-messages)."""

_MENTION = re.compile(r"<(![a-z]+|!subteam\^\w+|@[UW]\w*|#C\w*)(?:\|[^>]*)?>")
_WEBHOOK = "/services/T0MOCK/B0MOCK/"

FailureKind = Literal["unavailable", "throttled", "denied", "internal", "garbage", "reset", "lost"]


class SlackMockSettings(Settings):
    """How the Slack stand-in behaves."""

    token: str = setting("xoxb-mock-token", description="The bot token that it accepts.")
    webhook_key: str = setting("mockwebhookkey", description="The last part of the webhook address that it accepts.")
    channels: list[str] = setting(["ops", "general", "alerts"], description="The channels that the bot is a member of.")
    archived: list[str] = setting([], description="Channels that are archived.")
    foreign: list[str] = setting([], description="Channels that exist without the bot.")
    per_second: float = setting(
        0.0, ge=0, description="Messages a second that a channel takes before it answers 429; 0 takes any number."
    )
    retry_after: Duration = setting(1.0, description="What Retry-After says in a 429, in whole seconds as Slack does.")


class SlackMock(Mock):
    """Slack's Web API (auth.test, chat.postMessage, chat.update, conversations.list, .history) and an incoming webhook.

    `requests` lists what came: method, headers and arguments. `fail` also knows `internal` (`internal_error`), `garbage` (an
    answer that is no JSON), `reset` (the connection drops before any effect) and `lost` (the message is posted, then the
    connection drops).
    """

    settings_type = SlackMockSettings
    summary = "Slack's Web API and incoming webhooks, on loopback."

    def __init__(self, settings: SlackMockSettings | None = None) -> None:
        super().__init__(settings or SlackMockSettings())
        self.requests: list[dict[str, Any]] = []
        self._options: SlackMockSettings = self.settings
        self._messages: list[dict[str, Any]] = []
        self._failures: deque[str] = deque()
        self._recent: dict[str, deque[float]] = {}
        self._last_ts = 0
        self._runner: web.AppRunner | None = None
        self._url = ""
        names = dict.fromkeys([*self._options.channels, *self._options.archived, *self._options.foreign])
        self._ids = {name.lstrip("#"): f"C0MOCK{index:04}" for index, name in enumerate(names)}

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listens. Port 0 takes a free one."""
        application = web.Application(client_max_size=4 * 1024 * 1024)
        application.router.add_route("*", "/api/{method}", self._api)
        application.router.add_post(_WEBHOOK + "{key}", self._webhook)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port)
        await site.start()
        self._url = f"http://{host}:{self._runner.addresses[0][1]}"

    async def stop(self) -> None:
        """Ends the server and its connections."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return self._url

    @property
    def api_url(self) -> str:
        """The base address of the Web API, without a slash at its end."""
        return f"{self._url}/api"

    @property
    def webhook_url(self) -> str:
        """The address of the incoming webhook, which posts to the first channel."""
        return f"{self._url}{_WEBHOOK}{self._options.webhook_key}"

    @property
    def environment(self) -> dict[str, str]:
        """`SLACK_API_URL`, `SLACK_BOT_TOKEN` and `SLACK_WEBHOOK_URL`."""
        return {
            "SLACK_API_URL": self.api_url,
            "SLACK_BOT_TOKEN": self._options.token,
            "SLACK_WEBHOOK_URL": self.webhook_url,
        }

    def contents(self) -> list[dict[str, Any]]:
        """The messages in the order they came: channel, ts, text, blocks, metadata, and the `mentions` that would notify someone."""
        return [dict(message) for message in self._messages]

    def fail(self, times: int, kind: str = "unavailable") -> None:
        """The next `times` messages fail, as Slack fails."""
        self._failures.extend([kind] * times)

    # --- the Web API --------------------------------------------------------------------------------------------------

    async def _api(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        arguments = await _arguments(request)
        self.requests.append({"method": method, "headers": dict(request.headers), "arguments": arguments})
        handler = {
            "api.test": self._api_test,
            "auth.test": self._auth_test,
            "chat.postMessage": self._post_message,
            "chat.update": self._update,
            "conversations.list": self._list,
            "conversations.history": self._history,
        }.get(method)
        if handler is None:
            return _refused("unknown_method")
        header = request.headers.get("Authorization", "")
        token = header.removeprefix("Bearer ") if header else str(arguments.get("token", ""))
        if not token:
            return _refused("not_authed")
        if token != self._options.token:
            return _refused("invalid_auth")
        kind = self._failures.popleft() if method == "chat.postMessage" and self._failures else None
        early = self._failed_call(request, kind)
        if early is not None:
            return early
        answer = handler(arguments)
        if kind == "lost":
            return _dropped(request)
        return answer

    def _failed_call(self, request: web.Request, kind: str | None) -> web.StreamResponse | None:
        match kind:
            case "unavailable":
                return web.Response(status=503, text="upstream connect error")
            case "throttled":
                return self._throttled()
            case "denied":
                return _refused("invalid_auth")
            case "internal":
                return _refused("internal_error")
            case "garbage":
                return web.Response(status=200, text="<html>maintenance</html>", content_type="text/html")
            case "reset":
                return _dropped(request)
            case _:
                return None

    @staticmethod
    def _api_test(arguments: dict[str, Any]) -> web.Response:
        return _accepted(args=arguments)

    def _auth_test(self, _arguments: dict[str, Any]) -> web.Response:
        return _accepted(url=f"{self._url}/", team="Mock", user="trunkline", team_id="T0MOCK", user_id="U0MOCK")

    def _post_message(self, arguments: dict[str, Any]) -> web.Response:
        name = self._channel(str(arguments.get("channel", "")))
        if name is None:
            return _refused("channel_not_found")
        if name in self._options.archived:
            return _refused("is_archived")
        if name in self._options.foreign:
            return _refused("not_in_channel")
        fault = _fault(arguments)
        if fault is not None:
            return _refused(fault[0], fault[1])
        if self._too_fast(name):
            return self._throttled()
        message = self._keep(name, arguments)
        shown = {"type": "message", "user": "U0MOCK", "text": message["text"], "ts": message["ts"]}
        return _accepted(channel=self._ids[name], ts=message["ts"], message=shown)

    def _update(self, arguments: dict[str, Any]) -> web.Response:
        name = self._channel(str(arguments.get("channel", "")))
        found = next((each for each in self._messages if each["ts"] == arguments.get("ts")), None)
        if name is None:
            return _refused("channel_not_found")
        if found is None:
            return _refused("message_not_found")
        fault = _fault(arguments)
        if fault is not None:
            return _refused(fault[0], fault[1])
        found |= _shown(arguments)
        return _accepted(channel=self._ids[name], ts=found["ts"], text=found["text"])

    def _list(self, _arguments: dict[str, Any]) -> web.Response:
        channels = [
            {
                "id": number,
                "name": name,
                "is_channel": True,
                "is_archived": name in self._options.archived,
                "is_member": name not in self._options.foreign,
            }
            for name, number in self._ids.items()
        ]
        return _accepted(channels=channels, response_metadata={"next_cursor": ""})

    def _history(self, arguments: dict[str, Any]) -> web.Response:
        name = self._channel(str(arguments.get("channel", "")))
        if name is None:
            return _refused("channel_not_found")
        limit = int(arguments.get("limit", 100))
        before = str(arguments.get("cursor", "")) or None
        newest_first = [each for each in reversed(self._messages) if each["channel"] == name]
        if before is not None:
            newest_first = [each for each in newest_first if each["ts"] < before]
        page = newest_first[:limit]
        more = len(newest_first) > limit
        hidden = () if _truthy(arguments.get("include_all_metadata")) else ("metadata",)
        shown = [
            {"type": "message", **{key: value for key, value in each.items() if key not in ("mentions", *hidden)}}
            for each in page
        ]
        cursor = page[-1]["ts"] if more else ""
        return _accepted(messages=shown, has_more=more, response_metadata={"next_cursor": cursor})

    # --- the incoming webhook -----------------------------------------------------------------------------------------

    async def _webhook(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        self.requests.append({"method": "webhook", "headers": dict(request.headers), "arguments": raw})
        kind = self._failures.popleft() if self._failures else None
        if request.match_info["key"] != self._options.webhook_key:
            return web.Response(status=404, text="no_service")
        if kind == "denied":
            return web.Response(status=403, text="invalid_token")
        if kind == "internal":
            return web.Response(status=500, text="rollup_error")
        early = self._failed_call(request, kind)
        if early is not None:
            return early
        arguments = _webhook_arguments(raw)
        if arguments is None:
            return web.Response(status=400, text="invalid_payload")
        name = next(iter(self._ids))
        if name in self._options.archived:
            return web.Response(status=410, text="channel_is_archived")
        fault = _fault(arguments)
        if fault is not None:
            return web.Response(status=400, text=fault[0])
        if self._too_fast(name):
            return self._throttled()
        self._keep(name, arguments)
        if kind == "lost":
            return _dropped(request)
        return web.Response(status=200, text="ok")

    # --- what both share ----------------------------------------------------------------------------------------------

    def _channel(self, given: str) -> str | None:
        name = given.lstrip("#")
        if name in self._ids:
            return name
        return next((known for known, number in self._ids.items() if number == given), None)

    def _too_fast(self, name: str) -> bool:
        if not self._options.per_second:
            return False
        now = time.monotonic()
        recent = self._recent.setdefault(name, deque())
        while recent and recent[0] <= now - 1.0:
            recent.popleft()
        if len(recent) >= max(1.0, self._options.per_second):
            return True
        recent.append(now)
        return False

    def _throttled(self) -> web.Response:
        headers = {"Retry-After": str(max(0, round(self._options.retry_after)))}
        return web.json_response({"ok": False, "error": "ratelimited"}, status=429, headers=headers)

    def _keep(self, name: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        # A ts names a message within its channel, so it must be unique and ascending.
        self._last_ts = max(self._last_ts + 1, time.time_ns() // 1000)
        ts = f"{self._last_ts // 1_000_000}.{self._last_ts % 1_000_000:06}"
        message: dict[str, Any] = {"channel": name, "ts": ts, **_shown(arguments)}
        self._messages.append(message)
        return message


def _shown(arguments: Mapping[str, Any]) -> dict[str, Any]:
    text = str(arguments.get("text") or "")
    blocks = arguments.get("blocks")
    everything = text + (orjson.dumps(blocks).decode() if blocks else "")
    return {
        "text": text,
        "blocks": blocks,
        "metadata": arguments.get("metadata"),
        "mentions": [match.group(0) for match in _MENTION.finditer(everything)],
    }


def _fault(arguments: Mapping[str, Any]) -> tuple[str, list[str]] | None:
    """The error code and details for a message that Slack would refuse."""
    text, blocks, metadata = arguments.get("text"), arguments.get("blocks"), arguments.get("metadata")
    if not text and not blocks:
        return "no_text", []
    if text and len(str(text)) > MAX_TEXT:
        return "msg_too_long", []
    if blocks is not None:
        faults = block_faults(blocks)
        if faults:
            return "invalid_blocks", [f"[ERROR] {fault}" for fault in faults]
    if metadata is not None and not (
        isinstance(metadata, dict)
        and isinstance(metadata.get("event_type"), str)
        and isinstance(metadata.get("event_payload"), dict)
    ):
        return "invalid_metadata_format", []
    return None


async def _arguments(request: web.Request) -> dict[str, Any]:
    """The arguments of a call: the query's, a form's or a JSON body's. Structures in a form or a query are JSON text."""
    found: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json":
        body = await request.read()
        parsed = orjson.loads(body) if body else {}
        found |= parsed if isinstance(parsed, dict) else {}
    elif request.can_read_body:
        form = await request.post()
        found |= {name: value for name, value in form.items() if isinstance(value, str)}
    for name in ("blocks", "metadata", "attachments"):
        if isinstance(found.get(name), str):
            found[name] = orjson.loads(found[name])
    return found


def _webhook_arguments(raw: bytes) -> dict[str, Any] | None:
    try:
        parsed = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return parsed if isinstance(parsed, dict) else None


def _accepted(**answer: Any) -> web.Response:
    return web.json_response({"ok": True, **answer})


def _refused(code: str, messages: list[str] | None = None) -> web.Response:
    answer: dict[str, Any] = {"ok": False, "error": code}
    if messages:
        answer["response_metadata"] = {"messages": messages}
    return web.json_response(answer)


def _dropped(request: web.Request) -> web.Response:
    """Cuts the connection without an answer."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


def _truthy(value: Any) -> bool:
    return str(value).lower() in ("1", "true")
