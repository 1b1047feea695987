"""The settings of the `webhook` source: where it listens, how it knows the sender, and what becomes of a body."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from trunkline.core.settings import Duration, Secret, Settings, Size, setting

DAY = 24 * 3600.0
_HEADER_NAME = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"  # RFC 9110, section 5.6.2: token
_TEMPLATE_FIELD = re.compile(r"\{([^{}]*)\}")


def _header(default: Any = ..., *, description: str, examples: list[Any] | None = None) -> Any:
    return setting(default, description=description, examples=examples, pattern=_HEADER_NAME)


class _Shared(Settings):
    dedupe_window: Duration = setting(
        DAY,
        description="For how long a repeated delivery is recognised and makes no new event; 0 switches that off.",
        examples=["24h"],
    )


class _WithSecrets(_Shared):
    secrets: list[Secret] = setting(
        description="The shared secrets that are accepted. Give the old and the new one while a secret is rotated.",
        examples=[["${env:WEBHOOK_SECRET}"]],
        min_length=1,
        max_length=16,
    )


class _WithTolerance(_WithSecrets):
    tolerance: Duration = setting(
        300.0, description="How far a signed timestamp may be from our clock, either way.", examples=["5m"]
    )


class GitHub(_WithSecrets):
    """`X-Hub-Signature-256`. The signature does not cover the delivery id, so a repeat is known by the body's digest."""

    provider: Literal["github"]


class GitLab(_WithSecrets):
    """`X-Gitlab-Token`. A repeat is known by `Idempotency-Key`, which GitLab keeps over its retries, else by the body's digest."""

    provider: Literal["gitlab"]


class Slack(_WithTolerance):
    """`X-Slack-Signature` v0 over timestamp and body: Events API, slash commands and interactivity."""

    provider: Literal["slack"]


class Stripe(_WithTolerance):
    """`Stripe-Signature` v1 over timestamp and body. A repeat is known by the event's id inside the signed body."""

    provider: Literal["stripe"]


class StandardWebhooks(_WithTolerance):
    """The Standard Webhooks specification: `webhook-id`, `webhook-timestamp` and `webhook-signature` (v1)."""

    provider: Literal["standard_webhooks"]


class GenericHmac(_WithTolerance):
    """Any other sender that signs with HMAC and a shared secret."""

    provider: Literal["hmac"]
    header: str = _header(description="The header that carries the signature.", examples=["X-Signature"])
    algorithm: Literal["sha1", "sha256", "sha512"] = setting("sha256", description="The hash function.")
    encoding: Literal["hex", "base64"] = setting("hex", description="How the signature is written.")
    prefix: str = setting("", description="Text that stands before the signature.", examples=["sha256="])
    key_encoding: Literal["text", "hex", "base64"] = setting("text", description="How the secrets are written.")
    signed: str = setting(
        "{body}",
        description="What is signed: a template of `{body}`, `{timestamp}` and `{id}`.",
        examples=["{timestamp}.{body}"],
    )
    timestamp_header: str | None = _header(
        None, description="The header with the signed Unix timestamp, in seconds.", examples=["X-Timestamp"]
    )
    id_header: str | None = _header(
        None, description="The header with the signed id of the event.", examples=["X-Event-Id"]
    )

    @model_validator(mode="after")
    def _template_and_headers_agree(self) -> GenericHmac:
        fields = set(_TEMPLATE_FIELD.findall(self.signed))
        if unknown := fields - {"body", "timestamp", "id"}:
            raise ValueError(f"`signed` knows {{body}}, {{timestamp}} and {{id}}, not {', '.join(sorted(unknown))}")
        if "body" not in fields:
            raise ValueError("`signed` must contain {body}: otherwise anybody could change the body")
        for field, header in (("timestamp", self.timestamp_header), ("id", self.id_header)):
            if (field in fields) != (header is not None):
                raise ValueError(f"`{field}_header` and {{{field}}} in `signed` go together: the other one is missing")
        return self


class _Unsigned(_Shared):
    dedupe_window: Duration = setting(
        0.0,
        description="For how long a repeat is recognised, by `id_header` or the body's digest; 0 takes each request as new.",
        examples=["24h"],
    )
    id_header: str | None = _header(
        None, description="A header with an id that the sender repeats on retries.", examples=["Idempotency-Key"]
    )


class BasicAuth(_Unsigned):
    """HTTP Basic (RFC 7617)."""

    provider: Literal["basic"]
    username: str = setting(description="The user name.", min_length=1, references=True)
    secrets: list[Secret] = setting(
        description="The passwords that are accepted.",
        examples=[["${env:WEBHOOK_PASSWORD}"]],
        min_length=1,
        max_length=16,
    )


class ApiKey(_Unsigned):
    """A fixed key in a header."""

    provider: Literal["api_key"]
    header: str = _header("X-API-Key", description="The header that carries the key.")
    prefix: str = setting("", description="Text that stands before the key.", examples=["Bearer "])
    secrets: list[Secret] = setting(
        description="The keys that are accepted.", examples=[["${env:WEBHOOK_KEY}"]], min_length=1, max_length=16
    )


class Anybody(_Unsigned):
    """No check at all: whoever reaches the address can publish. Only behind something that checks."""

    provider: Literal["none"]


Verification = Annotated[
    GitHub | GitLab | Slack | Stripe | StandardWebhooks | GenericHmac | BasicAuth | ApiKey | Anybody,
    Field(discriminator="provider"),
]


class WebhookSettings(Settings):
    """A door for requests that others send."""

    path: str = setting(
        description="The path that requests come to.", examples=["/hooks/github"], pattern=r"^/[A-Za-z0-9._~/-]{1,200}$"
    )
    verify: Verification = setting(
        description="How the sender is known: one of the providers, with its secrets. `provider: none` must be said.",
        examples=[{"provider": "github", "secrets": ["${env:GITHUB_WEBHOOK_SECRET}"]}],
    )
    payload: Literal["fields", "document"] = setting(
        "fields",
        description=(
            "`fields`: the body's JSON object is the value and must fit the topic's schema. `document`: the value is kind, id "
            "and the body as text, for topics without a schema of their own."
        ),
    )
    max_body: Size = setting(
        2 * 2**20,
        description="The largest body, on the wire and decompressed. GitHub sends up to 25 MB.",
        examples=["2 MiB"],
        gt=0,
        le=64 * 2**20,
    )
    items: str | None = setting(
        None,
        description="The dotted path of a list in the body, each item of which is an event of its own; `$` for the whole body.",
        examples=["data.items", "$"],
    )
    kind_header: str | None = _header(
        None, description="The header that names the kind of event, where the provider has none.", examples=["X-Event"]
    )
    kind_field: str | None = setting(
        None, description="The dotted path of the kind of event, where the provider has none.", examples=["event.type"]
    )
    id_field: str | None = setting(
        None,
        description="The dotted path of an id in the body that is the same whenever the same event is sent.",
        examples=["event.id"],
    )
    subject_field: str | None = setting(
        None,
        description="The dotted path of what the event is about: its subject, and the record's key.",
        examples=["order.id"],
    )
    correlation_field: str | None = setting(
        None, description="The dotted path of a correlation id in the body.", examples=["meta.request_id"]
    )
    max_depth: int = setting(64, description="How deeply JSON may be nested.", ge=1, le=200)
    max_elements: int = setting(
        200_000, description="How many values, members and items JSON may have in all.", ge=1, le=5_000_000
    )

    @field_validator("items", "kind_field", "id_field", "subject_field", "correlation_field")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None and value != "$" and not all(value.split(".")):
            raise ValueError(f"a dotted path is expected, such as event.id, found {value!r}")
        return value

    @model_validator(mode="after")
    def _documents_are_whole(self) -> WebhookSettings:
        if self.payload == "document" and self.items is not None:
            raise ValueError("`items` splits a body into fields; with `payload: document` the body stays whole")
        return self
