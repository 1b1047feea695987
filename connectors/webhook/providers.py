"""What a provider's request says of itself once it is believed: the kind of event, its subject, its id, its time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from connectors.webhook.bodies import text_at
from trunkline.core.envelope import parse_time


@dataclass(frozen=True, slots=True)
class Description:
    """`kind` is the provider's own word; `delivery` is the id it shows to people; `body_id` is an id inside the proven body.

    `reply` answers in place of an event (Slack's challenge, with an empty one for its check of the certificate); `status` is the
    answer to an event, where the provider wants another one than 202.
    """

    kind: str | None = None
    subject: str | None = None
    delivery: str | None = None
    body_id: str | None = None
    time: datetime | None = None
    reply: str | None = None
    status: int = 202


Describe = Callable[[Mapping[str, str], Any, bool], Description]
"""Takes the headers, the body's value (None if it is other text) and whether it came as a form. Never raises."""


def describe_with(provider: str) -> tuple[str, Describe]:
    """The first part of the CloudEvents type for a provider, and the function that describes its requests."""
    return _PROVIDERS.get(provider, ("webhook", _nothing_known))


def _nothing_known(headers: Mapping[str, str], _value: Any, _form: bool) -> Description:
    return Description(delivery=headers.get("x-request-id"))


def _github(headers: Mapping[str, str], value: Any, _form: bool) -> Description:
    """https://docs.github.com/en/webhooks/webhook-events-and-payloads#delivery-headers"""
    subject = (
        text_at(value, "repository.full_name")
        or text_at(value, "organization.login")
        or text_at(value, "installation.account.login")
    )
    return Description(kind=headers.get("x-github-event"), subject=subject, delivery=headers.get("x-github-delivery"))


def _gitlab(headers: Mapping[str, str], value: Any, _form: bool) -> Description:
    """https://docs.gitlab.com/user/project/integrations/webhook_events/"""
    spoken = headers.get("x-gitlab-event", "").removesuffix(" Hook").strip().lower().replace(" ", "_")
    kind = text_at(value, "object_kind") or text_at(value, "event_name") or text_at(value, "event_type") or spoken
    return Description(
        kind=kind or None,
        subject=text_at(value, "project.path_with_namespace") or text_at(value, "path_with_namespace"),
        delivery=headers.get("idempotency-key") or headers.get("x-gitlab-event-uuid"),
    )


def _slack(_headers: Mapping[str, str], value: Any, form: bool) -> Description:
    """https://docs.slack.dev/apis/events-api/ and /interactivity/; slash commands and interactions want exactly 200 with no body."""
    if not isinstance(value, dict):
        return Description()
    kind = text_at(value, "type")
    if kind == "url_verification":
        return Description(kind=kind, reply=text_at(value, "challenge") or "")
    if form and text_at(value, "ssl_check"):
        return Description(kind="ssl_check", reply="")
    if form and text_at(value, "command"):
        return Description(
            kind="command", subject=text_at(value, "channel_id"), delivery=text_at(value, "trigger_id"), status=200
        )
    if form:
        return Description(
            kind=kind, subject=text_at(value, "channel.id"), delivery=text_at(value, "trigger_id"), status=200
        )
    event_id = text_at(value, "event_id")
    return Description(
        kind=text_at(value, "event.type") or kind,
        subject=text_at(value, "event.channel") or text_at(value, "team_id"),
        delivery=event_id,
        body_id=event_id,
        time=_unix(value.get("event_time")),
    )


def _stripe(_headers: Mapping[str, str], value: Any, _form: bool) -> Description:
    """https://docs.stripe.com/api/events/object"""
    if not isinstance(value, dict):
        return Description()
    event_id = text_at(value, "id")
    return Description(
        kind=text_at(value, "type"),
        subject=text_at(value, "data.object.id"),
        delivery=event_id,
        body_id=event_id,
        time=_unix(value.get("created")),
    )


def _standard(headers: Mapping[str, str], value: Any, _form: bool) -> Description:
    """The specification recommends the members `type`, `timestamp` and `data`."""
    return Description(
        kind=text_at(value, "type"), delivery=headers.get("webhook-id"), time=parse_time(text_at(value, "timestamp"))
    )


def _unix(seconds: Any) -> datetime | None:
    if isinstance(seconds, bool) or not isinstance(seconds, int) or not 0 <= seconds < 10**11:
        return None
    return datetime.fromtimestamp(seconds, UTC)


def with_settings(
    found: Description,
    headers: Mapping[str, str],
    value: Any,
    *,
    kind_header: str | None,
    paths: Mapping[str, str | None],
) -> Description:
    """`found`, changed by what the manifest says: a header and dotted paths win over what the provider is known for."""
    kind = headers.get(kind_header.lower()) if kind_header else None
    return replace(
        found,
        kind=kind or text_at(value, paths["kind"]) or found.kind,
        subject=text_at(value, paths["subject"]) or found.subject,
        body_id=text_at(value, paths["id"]) or found.body_id,
    )


_PROVIDERS: dict[str, tuple[str, Describe]] = {
    "github": ("github", _github),
    "gitlab": ("gitlab", _gitlab),
    "slack": ("slack", _slack),
    "stripe": ("stripe", _stripe),
    "standard_webhooks": ("webhook", _standard),
}
