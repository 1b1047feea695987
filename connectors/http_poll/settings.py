"""The settings of the `http_poll` source and of its connection."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trunkline.core.http import HttpAuth, HttpOptions, NoAuth
from trunkline.core.settings import Duration, Settings, setting

_PARAM = r"^[^\s&=?#]{1,100}$"


class HttpPollConnection(Settings):
    """An HTTP API and the credentials for it."""

    base_url: str = setting(
        description="What comes before `path`. Credentials go to its origin and nowhere else.",
        examples=["https://api.example.com/v2"],
        references=True,
    )
    auth: HttpAuth = setting(NoAuth(), description="The credentials.")
    http: HttpOptions = setting(HttpOptions(), description="Time-outs, limits, and private addresses that are allowed.")


class NoPaging(Settings):
    """One answer holds everything."""

    type: Literal["none"] = setting("none", description="One answer holds everything.")


class PagePaging(Settings):
    """Pages by number."""

    type: Literal["page"] = setting(description="Pages by number.")
    param: str = setting("page", description="The parameter that carries the number.", pattern=_PARAM)
    start: int = setting(1, ge=0, description="The first page's number.")
    size: int | None = setting(
        None, ge=1, description="Items a page: a shorter one is the last. Without it, an empty page is the last."
    )
    size_param: str | None = setting(None, description="The parameter that carries `size`.", pattern=_PARAM)


class OffsetPaging(Settings):
    """Pages by how many items to pass over."""

    type: Literal["offset"] = setting(description="Pages by how many items to pass over.")
    param: str = setting("offset", description="The parameter that carries the offset.", pattern=_PARAM)
    size: int = setting(100, ge=1, description="Items a page: a shorter one is the last.")
    size_param: str | None = setting("limit", description="The parameter that carries `size`.", pattern=_PARAM)


class CursorPaging(Settings):
    """Each answer names the next page."""

    type: Literal["cursor"] = setting(description="Each answer names the next page; null, empty or absent ends.")
    next: str = setting(
        description="Where the answer holds the next page's token: a dotted path.", examples=["meta.next_cursor"]
    )
    param: str = setting("cursor", description="The parameter that carries the token.", pattern=_PARAM)


class LinkPaging(Settings):
    """Each answer's `Link` header (RFC 8288) names the next page."""

    type: Literal["link"] = setting(description="The `Link` header with rel=next names the next page (RFC 8288).")


Paging = Annotated[NoPaging | PagePaging | OffsetPaging | CursorPaging | LinkPaging, Field(discriminator="type")]


class Incremental(Settings):
    """Only what is new: the greatest value of a field is kept and sent as a parameter."""

    field: str = setting(
        description="The field of an item whose greatest value is kept: a dotted path.", examples=["updated_at"]
    )
    param: str | None = setting(
        "since",
        description="The parameter that carries it. The API must answer with all items at or after it; those at the value itself "
        "that were published before are passed over. Null when `params` uses `cursor` instead.",
        pattern=_PARAM,
    )
    initial: str | int | float | None = setting(
        None, description="The value before the first poll; without it the first poll asks for everything."
    )
    order: Literal["auto", "number", "time", "text"] = setting(
        "auto",
        description="How values are compared. `auto`: numbers as numbers, ISO 8601 times as times, all else as text.",
    )


class HttpPollSettings(Settings):
    """What is asked for, how often, and how items become events."""

    path: str = setting(description="The URL, appended to the connection's base URL.", examples=["/orders"])
    method: Literal["GET", "POST"] = setting("GET", description="The method.")
    params: dict[str, str] = setting(
        {},
        description="Query parameters, each a Jinja2 template that may use `cursor`. One that uses it and gives nothing is left "
        "out.",
        examples=[{"status": "open", "filter": "updated ge {{ cursor }}"}],
        references=True,
    )
    headers: dict[str, str] = setting(
        {}, description="Headers.", examples=[{"Accept": "application/vnd.api+json"}], references=True
    )
    body: str | None = setting(
        None, description="The body of a POST: JSON, as a Jinja2 template that may use `cursor`."
    )
    format: Literal["json", "jsonl"] = setting("json", description="JSON, or JSON Lines: one item a line.")
    items: str = setting(
        "",
        description="Where a JSON answer holds its list: a dotted path; empty for the answer itself.",
        examples=["data.orders"],
    )
    id: str | None = setting(None, description="The field with an item's id: a dotted path.", examples=["id"])
    time: str | None = setting(
        None, description="The field with its time: ISO 8601, or Unix seconds or milliseconds.", examples=["updated_at"]
    )
    key: str | None = setting(None, description="The field that becomes the record's key.", examples=["customer.id"])
    correlation: str | None = setting(None, description="The field with its correlation id.", examples=["request_id"])
    event_type: str | None = setting(
        None, description="The CloudEvents type of the events.", examples=["order.changed"]
    )
    pagination: Paging = setting(NoPaging(), description="How the pages of an answer are found.")
    incremental: Incremental | None = setting(None, description="Asks only for what is new.")
    emit: Literal["all", "changed"] = setting(
        "all",
        description="Without `incremental`: `all` publishes every item at every poll, `changed` those that the poll before did not "
        "give in the same form (up to 10,000 items).",
    )
    interval: Duration = setting(60.0, ge=0.1, description="How long after the last page the next poll begins.")
    rate: float | None = setting(None, gt=0, le=1000, description="Requests a second at the most.")

    @model_validator(mode="after")
    def _fits_together(self) -> HttpPollSettings:
        if self.body is not None and self.method != "POST":
            raise ValueError("`body` needs `method: POST`")
        if self.format == "jsonl" and (self.items or isinstance(self.pagination, CursorPaging)):
            raise ValueError("JSON Lines have neither `items` nor pagination by cursor")
        if self.incremental is not None and self.emit == "changed":
            raise ValueError("`emit: changed` and `incremental` exclude each other")
        return self
