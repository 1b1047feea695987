"""The settings of the `http` sink and of its connection."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from trunkline.core.http import HttpAuth, HttpOptions, NoAuth
from trunkline.core.settings import Duration, Secret, Settings, setting

_STATUS = re.compile(r"[1-5](\d\d|xx)")


class HttpSinkConnection(Settings):
    """An HTTP server and the credentials for it."""

    base_url: str | None = setting(
        None,
        description="What comes before URLs that are not absolute. Credentials go to its origin and nowhere else.",
        examples=["https://api.example.com/v2"],
        references=True,
    )
    auth: HttpAuth = setting(NoAuth(), description="The credentials.")
    http: HttpOptions = setting(HttpOptions(), description="Time-outs, limits, and private addresses that are allowed.")


class TemplateBody(Settings):
    """A body made from a template."""

    template: str = setting(
        description="Jinja2. For a JSON content type each value is escaped as the inside of a JSON string, `tojson` gives a "
        "whole JSON value, and the result must be JSON.",
        examples=['{"order": {{ event.id | tojson }}, "note": "from {{ event.source }}"}'],
    )


class FieldBody(Settings):
    """A body that a field of the value holds."""

    field: str = setting(
        description="The field whose text or bytes are the body as they are; a dotted path.", examples=["document.xml"]
    )


class SigningSettings(Settings):
    """Signatures by Standard Webhooks (https://www.standardwebhooks.com)."""

    secrets: list[Secret] = setting(
        description="The shared secrets, `whsec_` and base64 of 24 to 64 bytes. With several, each signs: so they are rotated.",
        min_length=1,
        max_length=5,
    )


class HttpSinkSettings(Settings):
    """One request for each record."""

    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] = setting("POST", description="The method.")
    url: str = setting(
        description="The URL, absolute or to be appended to `base_url`. A Jinja2 template; each value is percent-encoded "
        "(`verbatim` leaves it alone).",
        examples=["/orders/{{ event.order_id }}"],
        references=True,
    )
    headers: dict[str, str] = setting(
        {},
        description="Header values, each a Jinja2 template.",
        examples=[{"X-Tenant": "{{ event.tenant }}"}],
        references=True,
    )
    body: Literal["json", "none"] | TemplateBody | FieldBody | None = setting(
        None,
        description="`json`: the whole value as JSON; `none`; a `template`; or a `field`. By default JSON, and none for GET and "
        "DELETE.",
    )
    content_type: str | None = setting(
        None,
        description="The body's type: by default application/json; for a field text/plain or application/octet-stream.",
    )
    success: list[str | int] = setting(
        ["2xx"], description="Statuses that mean delivered.", examples=[["2xx", 409]], min_length=1
    )
    retry: list[str | int] = setting(
        [],
        description="Statuses that are tried again, besides 408, 421, 423, 425, 429 and 5xx.",
        examples=[[409]],
    )
    dead: list[str | int] = setting(
        [], description="Statuses that make a dead letter although they would be tried again.", examples=[[501]]
    )
    idempotency_header: str | None = setting(
        "Idempotency-Key", description="The header that carries the delivery's idempotency key; null for none."
    )
    idempotent: bool | None = setting(
        None,
        description="Whether a repeated request has no second effect: the method is idempotent, or the endpoint honours the "
        "idempotency key or `webhook-id`. By default true for PUT and DELETE. A request without an answer is then sent again.",
    )
    signing: SigningSettings | None = setting(None, description="Signs each request.")
    reference: str | None = setting(
        None,
        description="Where a JSON answer names what was made, a dotted path, for the trace. Else the `Location` header is kept.",
        examples=["data.id"],
    )
    probe: str | None = setting(
        None,
        description="A URL that is read (GET) before the first delivery; it must answer 2xx.",
        examples=["/health"],
    )
    timeout: Duration | None = setting(
        None, description="How long a request may take in all; the connection's where absent."
    )

    @field_validator("success", "retry", "dead")
    @classmethod
    def _are_statuses(cls, value: list[str | int]) -> list[str | int]:
        for status in value:
            if not _STATUS.fullmatch(str(status)):
                raise ValueError(f"a status such as 409 or a class such as 5xx is expected, found {status!r}")
        return value
