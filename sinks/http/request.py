"""What is sent for an event: its URL, headers and body, compiled once from the settings."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import orjson

from sinks.http.settings import FieldBody, HttpSinkConnection, HttpSinkSettings, TemplateBody
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.http import NoAuth, check_header, check_url
from trunkline.core.jsonable import to_json_bytes
from trunkline.core.template import Template, compile_template

_JSON = re.compile(r"application/(.+\+)?json\b", re.IGNORECASE)
_FIXED_ORIGIN = re.compile(r"https?://[^/{}?#]+[/?]")
_MISSING = object()

Body = Callable[[Event], tuple[bytes | None, str | None]]
"""The body of an event and its content type."""


class RequestPlan:
    """Makes the parts of a request. Raises `ConfigurationError` when made from settings that can't work."""

    def __init__(self, settings: HttpSinkSettings, connection: HttpSinkConnection) -> None:
        self._url = compile_template(settings.url, "config.url", escape=in_url)
        _check_origin(self._url, settings.url, connection)
        templates = {name: compile_template(text, f"config.headers.{name}") for name, text in settings.headers.items()}
        for name, template in templates.items():
            check_header(name, template.constant or "")
        self._fixed = {name: found.constant for name, found in templates.items() if found.constant is not None}
        self._varying = {name: found for name, found in templates.items() if found.constant is None}
        self.body = _body(settings)

    @property
    def varies(self) -> bool:
        """Whether a record decides on the URL or on headers: then a malformed one is that record's fault."""
        return self._url.constant is None or bool(self._varying)

    @property
    def constant_url(self) -> str | None:
        """The URL when it is the same for all records."""
        return self._url.constant

    def url(self, event: Event) -> str:
        """The event's URL. Raises `RejectedError`."""
        return self._url.constant if self._url.constant is not None else self._url.render(event)

    def headers(self, event: Event) -> dict[str, str]:
        """A new map of the event's headers. Raises `RejectedError`."""
        found = dict(self._fixed)
        for name, template in self._varying.items():
            found[name] = template.render(event)
        return found


def in_url(value: str) -> str:
    """A value percent-encoded for one place in a URL.

    Raises ValueError for what would change the path around it: nothing at all, `.` and `..`, which even encoded mean steps.
    """
    if value in ("", ".", ".."):
        raise ValueError(f"{value!r} can't stand in a URL: it would name another address")
    return quote(value, safe="")


def in_json_string(value: str) -> str:
    """A value as the inside of a JSON string."""
    return orjson.dumps(value).decode()[1:-1]


def field_at(value: Any, path: str) -> Any:
    """What stands at a dotted path of maps. Raises KeyError."""
    for name in path.split("."):
        if not isinstance(value, dict):
            raise KeyError(path)
        value = value[name]
    return value


def _check_origin(template: Template, text: str, connection: HttpSinkConnection) -> None:
    if template.constant is not None:
        if connection.base_url is None:
            check_url(template.constant)
        return
    if connection.base_url is None and not isinstance(connection.auth, NoAuth) and not _FIXED_ORIGIN.match(text):
        raise ConfigurationError(
            "the credentials would go wherever a record says",
            where="config.url",
            hint="begin the URL with scheme and host, or set the connection's base_url",
        )


def _body(settings: HttpSinkSettings) -> Body:
    kind = settings.body
    if kind is None:
        kind = "none" if settings.method in ("GET", "DELETE") else "json"
    if kind == "none":
        return lambda event: (None, None)
    if isinstance(kind, TemplateBody):
        return _template_body(kind, settings.content_type or "application/json")
    if isinstance(kind, FieldBody):
        return _field_body(kind.field, settings.content_type)
    content_type = settings.content_type or "application/json"

    def whole(event: Event) -> tuple[bytes | None, str | None]:
        if event.value is None:
            raise RejectedError("the record has no value (a tombstone)", code="sink.no_value")
        return to_json_bytes(event.value), content_type

    return whole


def _template_body(body: TemplateBody, content_type: str) -> Body:
    is_json = _JSON.match(content_type) is not None
    template = compile_template(body.template, "config.body.template", escape=in_json_string if is_json else None)

    def rendered(event: Event) -> tuple[bytes | None, str | None]:
        content = template.render(event).encode("utf-8", "strict")
        if is_json:
            try:
                orjson.loads(content)
            except orjson.JSONDecodeError as error:
                raise RejectedError(
                    f"the body that the template gives is not JSON: {error.msg} at line {error.lineno}, "
                    f"column {error.colno}",
                    where="config.body.template",
                    code="template.not_json",
                ) from None
        return content, content_type

    return rendered


def _field_body(path: str, content_type: str | None) -> Body:
    def content_of(event: Event) -> tuple[bytes | None, str | None]:
        try:
            value = field_at(event.value, path)
        except KeyError:
            value = _MISSING
        if isinstance(value, str):
            return value.encode("utf-8", "strict"), content_type or "text/plain; charset=utf-8"
        if isinstance(value, bytes):
            return value, content_type or "application/octet-stream"
        found = "nothing" if value is _MISSING else type(value).__name__
        raise RejectedError(f"the field {path} must hold text or bytes, found {found}", code="sink.no_body")

    return content_of
