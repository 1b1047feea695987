"""The conformance of the `slack` sink, over the Web API."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sinks.slack.mock import SlackMock, SlackMockSettings
from sinks.slack.sink import SlackSink
from trunkline.core.testing import NotApplicableError, SinkKit, sink_suite

_NUMBER = re.compile(r"record (\d+)")


class SlackKit(SinkKit):
    """Slack's stand-in, which is checked against Slack's own client library elsewhere."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._mock = SlackMock(SlackMockSettings(retry_after=7.0))

    @property
    def environment(self) -> Mapping[str, str]:
        return self._mock.environment

    @property
    def secrets(self) -> Sequence[str]:
        return (self._mock.environment["SLACK_BOT_TOKEN"],)

    @property
    def config(self) -> Any:
        return {"channel": "#ops", "text": "{{ event.text }}", "min_interval": 0}

    @property
    def connection(self) -> dict[str, Any]:
        return {
            "token": "${env:SLACK_BOT_TOKEN}",
            "base_url": self._mock.api_url,
            "http": {"allow_private": ["127.0.0.1"]},
        }

    async def start(self) -> None:
        await self._mock.start()

    async def stop(self) -> None:
        await self._mock.stop()

    def value(self, number: int) -> Any:
        return {"text": f"record {number}"}

    def bad_value(self) -> Any:
        return {"text": ""}

    async def arrived(self) -> Sequence[int]:
        found = (_NUMBER.search(str(message["text"])) for message in self._mock.contents())
        return [int(match.group(1)) for match in found if match]

    async def break_down(self) -> None:
        self._mock.fail(1, "unavailable")

    async def throttle(self) -> float:
        self._mock.fail(1, "throttled")
        return 7

    async def refuse(self) -> None:
        self._mock.fail(100, "denied")

    async def hang(self) -> None:
        raise NotApplicableError(
            "the stand-in always answers; the `http` sink's suite hangs the client that both share"
        )


TestSlackSink = sink_suite(SlackSink, factory=SlackKit)
