"""The `webhook` source: judges requests that others send, and makes events of those it believes."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from connectors.webhook.bodies import Body, TooMuchError, UnreadableError, at_path, read_body, text_at
from connectors.webhook.providers import Description, describe_with, with_settings
from connectors.webhook.settings import WebhookSettings
from connectors.webhook.signatures import RefusedError, Verifier, body_digest, make_verifier
from trunkline.core.contracts import PluginContext, PushSource, Reception, RejectedInput, Request, SourceEvent
from trunkline.core.envelope import correlation_from, trace_id
from trunkline.core.uses import FieldUse, Use

DOCUMENT_SCHEMA = "trunkline/webhook_document.avsc"
_LONGEST_ID = 256
_KIND_FORM = re.compile(r"[^A-Za-z0-9._:/-]+")


@dataclass(frozen=True, slots=True)
class _Delivery:
    """A believed request: what names it, what it says of itself, and what all of its events share."""

    request: Request
    about: Description
    event_id: str | None
    dedupe_key: str | None
    place: str


class WebhookSource(PushSource):
    """Receives webhooks of GitHub, GitLab, Slack, Stripe, Standard Webhooks and whoever signs, or knows a password or a key."""

    settings_type = WebhookSettings
    summary: ClassVar[str] = "Webhooks that other systems send, signed or with a password or key."

    def __init__(self, settings: WebhookSettings, connection: Any = None) -> None:
        super().__init__(settings, connection)
        self.clock: Callable[[], float] = time.time
        self._verify: Verifier | None = None
        self._prefix, self._describe = describe_with(settings.verify.provider)
        self._log: Any = None

    @property
    def path(self) -> str:
        """Where requests come to."""
        return str(self.settings.path)

    @property
    def max_body(self) -> int:
        """The largest body, in bytes."""
        return int(self.settings.max_body)

    @property
    def anonymous(self) -> bool:
        """Whether nobody has to prove who he is."""
        return bool(self.settings.verify.provider == "none")

    @property
    def default_schema(self) -> str | None:
        """The built-in schema for topics that declare none: only documents have one, fields are the sender's own."""
        return DOCUMENT_SCHEMA if self.settings.payload == "document" else None

    def uses(self) -> Sequence[Use]:
        """The fields of the body that the settings name, where the body is the value."""
        settings: WebhookSettings = self.settings
        if settings.payload == "document" or settings.items is not None:
            return []
        names = ("kind_field", "id_field", "subject_field", "correlation_field")
        named = {name: getattr(settings, name) for name in names}
        return [FieldUse(tuple(path.split(".")), f"config.{name}") for name, path in named.items() if path]

    async def open(self, context: PluginContext) -> None:
        self._verify = make_verifier(self.settings.verify)
        self._log = context.log

    async def receive(self, request: Request) -> Reception:
        if request.method != "POST":
            return Reception(405, headers={"Allow": "POST"}, reason="only POST is taken here")
        if len(request.body) > self.max_body:
            return Reception(413, reason=f"the body is larger than {self.max_body} bytes")
        assert self._verify is not None, "receive before open"
        try:
            proof = self._verify(request.headers, request.body, self.clock())
        except RefusedError as error:
            # The sender hears one sentence for every cause: which one it was would help a forger.
            self._log.info("webhook.refused", path=self.path, remote=request.remote, cause=str(error))
            return self._unauthorized()
        return self._believed(request, proof.signed_id)

    def _unauthorized(self) -> Reception:
        basic = self.settings.verify.provider == "basic"
        headers = {"WWW-Authenticate": 'Basic realm="trunkline", charset="UTF-8"'} if basic else {}
        return Reception(401, headers=headers, reason="the request is not authenticated")

    def _believed(self, request: Request, signed_id: str | None) -> Reception:
        limits = self.settings
        try:
            body = read_body(
                request.body, request.headers, max_depth=limits.max_depth, max_elements=limits.max_elements
            )
        except TooMuchError as error:
            return Reception(413, reason=str(error))
        except UnreadableError as error:
            delivery = self._delivery(request, signed_id, self._describe(request.headers, None, False))
            return self._quarantined(delivery, str(error))
        about = with_settings(
            self._describe(request.headers, body.value, body.form),
            request.headers,
            body.value,
            kind_header=limits.kind_header,
            paths={"kind": limits.kind_field, "subject": limits.subject_field, "id": limits.id_field},
        )
        if about.reply is not None:
            return Reception(200, reply=about.reply.encode(), reply_type="text/plain; charset=utf-8")
        delivery = self._delivery(request, signed_id, about)
        if limits.payload == "document":
            value = {"kind": about.kind, "id": signed_id or about.body_id or about.delivery, "body": body.text}
            return self._accepted(delivery, [self._event(delivery, value, body.value, raw=request.body)])
        return self._fields(delivery, body)

    def _delivery(self, request: Request, signed_id: str | None, about: Description) -> _Delivery:
        provider, window = self.settings.verify.provider, self.settings.verify.dedupe_window
        known = signed_id or about.body_id
        if known is not None and len(known) > _LONGEST_ID:
            known = "sha256:" + body_digest(known.encode()).hex()
        place = f"{self.path} from {request.remote}"
        if about.delivery:
            place += f", delivery {about.delivery[:100]}"
        if known is not None:
            return _Delivery(request, about, known, f"{provider}:{known}" if window else None, place)
        if not window:
            # Where repeats are not recognised, equal bodies are different events and must not share an id.
            return _Delivery(request, about, None, None, place)
        digest = body_digest(request.body)
        # RFC 9562, section 5.8: a UUIDv8 is for ids made from what one likes; here from the digest, so a repeat has the same.
        custom = int.from_bytes(digest[:16], "big") & ~(0xF << 76) | 0x8 << 76
        custom = custom & ~(0x3 << 62) | 0x2 << 62
        return _Delivery(request, about, str(uuid.UUID(int=custom)), f"{provider}:sha256:{digest.hex()}", place)

    def _fields(self, delivery: _Delivery, body: Body) -> Reception:
        path = self.settings.items
        if path is None:
            if isinstance(body.value, dict):
                return self._accepted(
                    delivery, [self._event(delivery, body.value, body.value, raw=delivery.request.body)]
                )
            return self._quarantined(delivery, f"the body is {_named(body.value)} and no JSON object")
        items = at_path(body.value, path)
        if not isinstance(items, list):
            return self._quarantined(delivery, f"`items`: there is {_named(items)} and no list at {path!r}")
        events: list[SourceEvent] = []
        rejected: list[RejectedInput] = []
        for number, item in enumerate(items):
            # The item alone, and not the whole body again for each of its items.
            raw = json.dumps(item, ensure_ascii=False).encode()
            if isinstance(item, dict):
                events.append(self._event(delivery, item, body.value, raw=raw, number=number))
            else:
                place = f"{delivery.place}, item {number}"
                rejected.append(RejectedInput(raw, f"the item is {_named(item)} and no JSON object", place))
        return self._accepted(delivery, events, rejected)

    def _event(
        self, delivery: _Delivery, value: Any, body: Any, *, raw: bytes, number: int | None = None
    ) -> SourceEvent:
        headers, about, settings = delivery.request.headers, delivery.about, self.settings
        kind = _KIND_FORM.sub("_", about.kind)[:120] if about.kind else "received"
        subject = about.subject
        event_id = delivery.event_id
        if number is not None:
            subject = text_at(value, settings.subject_field) or subject
            own_id = text_at(value, settings.id_field)
            event_id = own_id or (f"{event_id}.{number}" if event_id else None)
        correlation = text_at(value, settings.correlation_field) or text_at(body, settings.correlation_field)
        traceparent = headers.get("traceparent")
        return SourceEvent(
            value,
            id=event_id,
            type=f"{self._prefix}.{kind}",
            subject=subject,
            time=about.time,
            key=subject,
            correlation_id=correlation_from(headers, correlation),
            traceparent=traceparent if trace_id(traceparent) else None,
            raw=raw,
            place=delivery.place if number is None else f"{delivery.place}, item {number}",
        )

    def _accepted(
        self, delivery: _Delivery, events: list[SourceEvent], rejected: list[RejectedInput] | None = None
    ) -> Reception:
        exact = delivery.about.status == 200
        return Reception(
            delivery.about.status,
            events=events,
            rejected=rejected or (),
            dedupe_key=delivery.dedupe_key,
            dedupe_window=self.settings.verify.dedupe_window,
            reply=b"" if exact else None,
            reply_type="text/plain" if exact else "application/json",
        )

    def _quarantined(self, delivery: _Delivery, reason: str) -> Reception:
        """A known sender sent what can't become an event: kept, and answered 202, because sending it again mends nothing."""
        request = delivery.request
        rejected = RejectedInput(request.body, reason, delivery.place, correlation_from(request.headers))
        return Reception(
            202,
            rejected=[rejected],
            dedupe_key=delivery.dedupe_key,
            dedupe_window=self.settings.verify.dedupe_window,
            reason=reason,
        )


def _named(value: Any) -> str:
    if value is None:
        return "nothing or null"
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    return names.get(type(value), "a number")
