"""Messages: what is posted for an event.

Slack reads `<…>` in a text as a link or a mention, which notifies people; so `&`, `<` and `>` of inserted values are escaped
(https://docs.slack.dev/messaging/formatting-message-text#escaping).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from trunkline.core.event import Event
from trunkline.core.template import Template, compile_template

Rendering = Callable[[Event], Any]

EVENT_TYPE = "trunkline_event"
"""The type of the metadata that messages carry (https://docs.slack.dev/messaging/message-metadata)."""

_NO_MARKUP = frozenset(
    {"action_id", "block_id", "image_url", "thumbnail_url", "title_url", "type", "url", "value", "video_url"}
)
"""Fields of blocks that Slack takes literally: an escaped `&` would break an address."""


def escape(text: str) -> str:
    """Text that Slack shows as it is, whatever it holds."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def compiled(structure: Any, where: str, *, literal: bool = False) -> Rendering:
    """What renders a structure of maps and lists whose texts are templates; `literal` escapes nothing.

    Raises `ConfigurationError` with the place in the structure, such as `blocks[0].text.text`.
    """
    if isinstance(structure, str):
        template: Template = compile_template(structure, where, escape=None if literal else escape)
        return template.render
    if isinstance(structure, dict):
        fields = {
            name: compiled(value, f"{where}.{name}", literal=name in _NO_MARKUP and isinstance(value, str))
            for name, value in structure.items()
        }
        return lambda event: {name: render(event) for name, render in fields.items()}
    if isinstance(structure, list):
        items = [compiled(value, f"{where}[{index}]") for index, value in enumerate(structure)]
        return lambda event: [render(event) for render in items]
    return lambda _event: structure


def templates_in(structure: Any, where: str) -> Iterator[tuple[str, str]]:
    """The texts of a structure, each a template, with their places."""
    if isinstance(structure, str):
        yield structure, where
    elif isinstance(structure, dict):
        for name, value in structure.items():
            yield from templates_in(value, f"{where}.{name}")
    elif isinstance(structure, list):
        for index, value in enumerate(structure):
            yield from templates_in(value, f"{where}[{index}]")


def metadata(event: Event) -> dict[str, Any]:
    """What makes a message recognisable to programs: the correlation id, and the key that two deliveries of one event share."""
    payload = {"correlation_id": event.correlation_id, "event_id": event.envelope.id}
    if event.idempotency_key:
        payload["idempotency_key"] = event.idempotency_key
    return {"event_type": EVENT_TYPE, "event_payload": payload}
