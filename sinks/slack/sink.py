"""Delivers events as Slack messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from sinks.slack.client import SlackClient
from sinks.slack.message import compiled, metadata, templates_in
from sinks.slack.pace import Pace
from sinks.slack.settings import SlackConnection, SlackSettings
from trunkline.core.contracts import Batch, PluginContext, Promises, Sink
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.uses import TemplateUse, Use
from trunkline.core.verdicts import Dead, Retry, Verdict


class SlackSink(Sink):
    """Posts a message for each event. Slack has no way to post a message only once: at-least-once, duplicates are recognisable
    by their metadata.
    """

    settings_type = SlackSettings
    connection_type = SlackConnection
    summary = "Posts events to a Slack channel, by the Web API or an incoming webhook."
    promises = Promises(idempotent=False, max_batch=1)

    settings: SlackSettings
    connection: SlackConnection

    def __init__(self, settings: SlackSettings, connection: SlackConnection) -> None:
        super().__init__(settings, connection)
        self._text = compiled(settings.text, "text")
        self._blocks = None if settings.blocks is None else compiled(settings.blocks, "blocks")
        # A channel is a name and no text of a message: nothing in it is markup.
        self._channel = compiled(settings.channel or "", "channel", literal=True)
        self._pace = Pace(settings.min_interval)
        self._client: SlackClient | None = None

    def uses(self) -> Sequence[Use]:
        """Every text is a template."""
        settings = self.settings
        texts = {"channel": settings.channel, "text": settings.text, "blocks": settings.blocks}
        return [
            TemplateUse(text, where)
            for name, structure in texts.items()
            for text, where in templates_in(structure, f"config.{name}")
        ]

    async def open(self, context: PluginContext) -> None:
        """Resolves the secret and asks Slack who we are."""
        by_webhook = self.connection.webhook_url is not None
        if by_webhook and self.settings.channel is not None:
            raise ConfigurationError(
                "channel: an incoming webhook posts to its own channel",
                hint="leave channel out, or give the connection a token",
                code="slack.channel",
            )
        if not by_webhook and self.settings.channel is None:
            raise ConfigurationError(
                "channel: with a bot token, the channel must be named",
                hint='add channel, such as "#ops"',
                code="slack.channel",
            )
        self._client = SlackClient(self.connection)
        team = await self._client.probe()
        context.log.info("slack_ready", team=team, channel=self.settings.channel)

    async def write(self, batch: Batch) -> Sequence[Verdict]:
        """Posts one message after the other, not faster than `min_interval` a channel."""
        return [await self._post(event) for event in batch.events]

    async def close(self) -> None:
        """Ends the connections."""
        if self._client is not None:
            await self._client.close()

    async def _post(self, event: Event) -> Verdict:
        assert self._client is not None, "open comes first"
        try:
            message = self._message(event)
        except RejectedError as error:
            return Dead(str(error), code=error.code)
        channel = message.get("channel", "")
        await self._pace.turn(channel)
        verdict = await self._client.post(message, event)
        if isinstance(verdict, Retry) and verdict.after is not None:
            self._pace.hold(channel, verdict.after, asyncio.get_running_loop().time())
        return verdict

    def _message(self, event: Event) -> dict[str, Any]:
        message: dict[str, Any] = {"text": self._text(event), "metadata": metadata(event)}
        if self.settings.channel is not None:
            message["channel"] = self._channel(event)
        if self._blocks is not None:
            message["blocks"] = self._blocks(event)
        # Slack unfurls media even where it unfurls no other links.
        message["unfurl_links"] = message["unfurl_media"] = self.settings.unfurl_links
        return message
