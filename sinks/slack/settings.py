"""Settings of the Slack sink and of its connection."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationInfo, field_validator, model_validator

from sinks.slack.message import compiled
from trunkline.core.errors import ConfigurationError
from trunkline.core.http import HttpOptions
from trunkline.core.settings import Duration, Secret, Settings, setting


class SlackConnection(Settings):
    """A Slack app: its bot token for the Web API, or the address of an incoming webhook."""

    token: Secret | None = setting(
        None,
        description="The bot token (xoxb-…) of an app with the scope chat:write. The bot must be a member of the channels.",
        examples=["${env:SLACK_BOT_TOKEN}"],
    )
    webhook_url: Secret | None = setting(
        None,
        description="The address of an incoming webhook, instead of a token. It belongs to one channel, and knowing it is enough to post.",
        examples=["${env:SLACK_WEBHOOK_URL}"],
    )
    base_url: str = setting("https://slack.com/api", description="Where the Web API is.", references=True)
    http: HttpOptions = setting(HttpOptions(), description="Time-outs, limits and addresses of the requests.")

    @model_validator(mode="after")
    def _one_way(self) -> SlackConnection:
        if (self.token is None) == (self.webhook_url is None):
            raise ValueError("give either token or webhook_url")
        return self


class SlackSettings(Settings):
    """What is posted for each event. Texts are Jinja2 templates that see event, meta, key and headers.

    What a template inserts is escaped, so that data can neither notify people nor make links; `| verbatim` inserts it as it is.
    """

    channel: str | None = setting(
        None,
        min_length=1,
        description="Where to post: a name or an id, as a template. Not with a webhook, which has its own channel.",
        examples=["#ops", "C0123456789"],
        references=True,
    )
    text: str = setting(
        min_length=1,
        description="The message, as a template. With blocks, it is what notifications show.",
        examples=["{{ event.carrier }}{{ event.flight }} is {{ event.minutes }} min late"],
    )
    blocks: list[dict[str, Any]] | None = setting(
        None,
        min_length=1,
        max_length=50,
        description="Block Kit blocks as YAML. Each text in them is a template.",
        examples=[[{"type": "section", "text": {"type": "mrkdwn", "text": "*{{ event.flight }}* is late"}}]],
    )
    min_interval: Duration = setting(
        1.0,
        le=60,
        description=(
            "The least time between two messages of this worker to one channel. Slack allows about one a second; more get 429. "
            "in_flight times this must stay below the pipeline's delivery timeout."
        ),
        references=True,
    )
    unfurl_links: bool = setting(False, description="Whether Slack shows previews of links in the text.")

    @field_validator("channel", "text", "blocks")
    @classmethod
    def _compiles(cls, value: Any, info: ValidationInfo) -> Any:
        try:
            compiled(value, str(info.field_name))
        except ConfigurationError as error:
            raise ValueError(str(error)) from error
        return value
