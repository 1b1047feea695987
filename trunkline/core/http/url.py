"""What a URL and a header must look like before anything is sent."""

from __future__ import annotations

import re
from collections.abc import Mapping

from yarl import URL

from trunkline.core.http.address import odd_number
from trunkline.core.http.errors import AddressRefusedError
from trunkline.core.redaction import excerpt, redact

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_NOT_IN_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_HOST = re.compile(r"[A-Za-z0-9._-]+|(?=[^%]*:)[0-9A-Fa-f:.]+(%[A-Za-z0-9._-]+)?")
_CACHED_NAMES = 1000
_checked_names: set[str] = set()
_HEADER_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


def check_header(name: str, value: str) -> None:
    """Raises `AddressRefusedError` for a name or value that would break out of its header line (RFC 9110, section 5.5)."""
    if not _HEADER_NAME.fullmatch(name):
        raise AddressRefusedError(f"{name[:50]!r} is no header name", code="http.header_refused")
    if _NOT_IN_VALUE.search(value) or not (value.isascii() or _encodable(value)):
        raise AddressRefusedError(
            f"the value of header {name} holds a control character, such as a line break", code="http.header_refused"
        )


def check_headers(headers: Mapping[str, str]) -> None:
    """`check_header` for all of them, at little more than the cost of one."""
    together = "".join(headers.values())
    if not _checked_names.issuperset(headers) or not together.isascii() or _NOT_IN_VALUE.search(together):
        for name, value in headers.items():
            check_header(name, value)
        if len(_checked_names) < _CACHED_NAMES:
            _checked_names.update(headers)


def check_url(text: str) -> URL:
    """`text` parsed. Raises `AddressRefusedError` for what is no plain http or https URL; its query is never in the message."""
    checked_text(text, "the URL")
    try:
        url = URL(text)
    except ValueError:
        raise AddressRefusedError(f"not a URL: {_without_query(text)!r}") from None
    return check_parsed(url, "the URL")


def checked_text(text: str, what: str) -> str:
    """`text` when nothing in it makes two readers of a URL disagree. Raises `AddressRefusedError`."""
    if _CONTROL.search(text) or "\\" in text or text != text.strip() or not (text.isascii() or _encodable(text)):
        raise AddressRefusedError(f"{what} holds control characters, backslashes, blanks around it or broken text")
    return text


def check_parsed(url: URL, what: str) -> URL:
    """`url` without its fragment. Raises `AddressRefusedError` for another scheme, no host, a user name, or a number as host."""
    if url.scheme not in ("http", "https") or not url.raw_host:
        raise AddressRefusedError(
            f"{what} must begin with http:// or https:// and name a host, found {place_of(url)[:200]!r}"
        )
    if url.raw_user is not None or url.raw_password is not None:
        raise AddressRefusedError(
            f"{what} holds a user name or password: {place_of(url)}", hint="put credentials into the connection's auth"
        )
    if not _HOST.fullmatch(url.raw_host):
        raise AddressRefusedError(f"{what} names a host with characters that no host name has: {place_of(url)}")
    if odd_number(url.raw_host):
        raise AddressRefusedError(f"{what} spells its address as a number: {place_of(url)}", hint="write it as a.b.c.d")
    return url.with_fragment(None)


def place_of(url: URL) -> str:
    """Scheme, host and path of a URL for messages: no query, no user. Known secrets in it are blanked."""
    port = f":{url.explicit_port}" if url.explicit_port is not None else ""
    host = url.raw_host or ""
    host = f"[{host}]" if ":" in host else host
    return redact(f"{url.scheme}://{host}{port}{url.raw_path}")


def _without_query(text: str) -> str:
    """The beginning of text that is no URL: nothing of a query, nothing before an `@`."""
    return excerpt(text.split("?", maxsplit=1)[0].rpartition("@")[2], 100)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
