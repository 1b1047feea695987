"""Which page is asked for next."""

from __future__ import annotations

import re
from typing import Any

from yarl import URL

from connectors.http_poll.answer import at_path
from connectors.http_poll.settings import CursorPaging, LinkPaging, NoPaging, OffsetPaging, PagePaging
from trunkline.core.errors import FatalError, RetriableError
from trunkline.core.redaction import excerpt

AnyPaging = NoPaging | PagePaging | OffsetPaging | CursorPaging | LinkPaging

_LINK = re.compile(r"<([^>]*)>((?:\s*;\s*[^\s=;,]+\s*(?:=\s*(?:\"(?:[^\"\\]|\\.)*\"|[^\s\",;]*))?)*)")
_REL = re.compile(r";\s*rel\s*=\s*(?:\"([^\"]*)\"|([^\s\",;]+))", re.IGNORECASE)


def page_params(paging: AnyPaging, page: Any) -> dict[str, str]:
    """The parameters that name `page` (None for the first one)."""
    found: dict[str, str] = {}
    if isinstance(paging, PagePaging):
        found[paging.param] = str(paging.start if page is None else page)
        if paging.size is not None and paging.size_param is not None:
            found[paging.size_param] = str(paging.size)
    elif isinstance(paging, OffsetPaging):
        found[paging.param] = str(page or 0)
        if paging.size_param is not None:
            found[paging.size_param] = str(paging.size)
    elif isinstance(paging, CursorPaging) and page is not None:
        found[paging.param] = str(page)
    return found


def next_page(
    paging: AnyPaging,
    page: Any,
    count: int,
    answer: Any,
    link: str,
    base: URL,
    *,
    size: int | None = None,
    secret_param: str | None = None,
) -> Any:
    """What names the page after `page`, or None after the last one. `count` items came; `link` is the `Link` header.

    `size` is how many items a full numbered page holds, where that was found out.

    A link is kept as an absolute URL of the same origin, without the parameter that carries credentials.
    Raises `RetriableError` when the answer names the same page again, `FatalError` for a link to another origin.
    """
    following: Any = None
    if isinstance(paging, PagePaging):
        full = size if paging.size is None else paging.size
        last = count == 0 or (full is not None and count < full)
        following = None if last else (paging.start if page is None else page) + 1
    elif isinstance(paging, OffsetPaging):
        following = None if count < paging.size else (page or 0) + count
    elif isinstance(paging, CursorPaging):
        token = at_path(answer, paging.next, None)
        following = token if isinstance(token, (str, int)) and not isinstance(token, bool) and token != "" else None
    elif isinstance(paging, LinkPaging):
        target = next_link(link)
        following = None if target is None else _resolved(target, page, base, secret_param)
    if following is not None and following == page:
        raise RetriableError(
            f"the answer names the same page again: {excerpt(str(following), 100)}", code="http_poll.loop"
        )
    return following


def next_link(header: str) -> str | None:
    """The target with relation `next` of a `Link` header (RFC 8288, section 3), or None."""
    for match in _LINK.finditer(header):
        relation = _REL.search(match.group(2))
        if relation is not None and "next" in (relation.group(1) or relation.group(2)).lower().split():
            return match.group(1)
    return None


def _resolved(target: str, page: Any, base: URL, secret_param: str | None) -> str:
    try:
        url = (URL(page) if isinstance(page, str) else base).join(URL(target))
    except ValueError:
        raise RetriableError("the Link header can't be read", code="http_poll.link") from None
    if url.origin() != base.origin():
        raise FatalError(
            f"the next page is on another origin, {url.origin()}",
            hint="make base_url the origin that the links name",
            code="http_poll.link",
        )
    if secret_param is not None:
        url = url.without_query_params(secret_param)
    return str(url)
