"""The fence: what a web page in somebody's browser may not reach.

Loopback, or being inside a company's network, keeps nobody out whose page is open in a browser there. Such a page can

- have its own name lead to our address (DNS rebinding): then `Host` is its name, and it may read what is answered;
- send requests that a browser sends without asking first ("simple" ones, Fetch Standard, section 4.10): any GET, and a POST whose body is
  text, a form or of no type. It can't read the answer, but what the request changes is changed. `Origin` and `Sec-Fetch-Site` tell.

An address instead of a name is no sign of either: nobody but its owner serves pages from it.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cache, lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_ASKED_FOR = frozenset({"application/json", "application/octet-stream"})
"""Types of bodies that a browser asks about before it sends them for another page. Apart from forms and text it also sends reports
(`application/csp-report`) and pings (`text/ping`) unasked, and who knows what to come: so these, and `…+json`, are all that is taken."""
_AUTHORITY = re.compile(
    r"(?:\[(?P<six>[0-9A-Fa-f:.]+)(?:%25[A-Za-z0-9._~-]+)?\]|(?P<name>[A-Za-z0-9_.-]+))(?::[0-9]*)?"
)
"""RFC 3986, section 3.2, without a user."""
_LONGEST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a request is not answered: an HTTP status and a sentence for who sent it."""

    status: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fence:
    """What is let through.

    * `names`: the host names under which the service is known, with `*.` before a domain for all names in it.
    * `loopback`: it listens on a loopback address. Then no other name leads to it; elsewhere any name may, unless some are named.
    * `origins`: those of pages that may send requests, such as `https://console.example.com`.
    * `any_host`: it is asked for under any name, as by tunnels and proxies in front of webhooks. What proves its sender needs no name.
    * `any_content`: bodies of every type come through, as webhooks have them.
    * `forms`: paths where forms do, since a standard asks for them, and what they bring is a secret that no page has.
    """

    loopback: bool = True
    names: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    any_host: bool = False
    any_content: bool = False
    forms: tuple[str, ...] = ()
    setting: str = field(default="TRUNKLINE_HOSTS", repr=False)

    def refusal(
        self, method: str, headers: Mapping[str, str], hosts: Collection[str], *, body: bool, path: str = ""
    ) -> Refused | None:
        """Why a request does not come through, or None.

        `headers` are looked up by their lower-case names. `hosts` are all the authorities that the request names: each `Host`, and that of
        an absolute request target (RFC 9112, section 3.2). `body` says whether it has one.
        """
        if len(hosts) > 1 and len({_name_of(host) for host in hosts}) > 1:
            return Refused(400, "the request names several hosts")
        for host in hosts:
            if not _is_known(self, host):
                shown = host[:_LONGEST_SHOWN]
                return Refused(
                    421, f"nothing is served under the name {shown!r}; the operator can allow it by {self.setting}"
                )
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if origin is not None and not self._is_own(origin, hosts):
            return Refused(403, "requests of other pages are not answered")
        if origin is None and site not in ("none", "same-origin"):
            return Refused(403, "requests of other pages are not answered")
        if body and method not in _SAFE_METHODS and not self.any_content and path not in self.forms:
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind not in _ASKED_FOR and not kind.endswith("+json"):
                return Refused(415, "the body needs a Content-Type that says what it is, such as application/json")
        return None

    def knows(self, name: str) -> bool:
        """Whether it is a name under which the service is known, or an address."""
        if self.any_host or _is_address(name):
            return True
        if not self.loopback and not self.names:
            return True
        if name == "localhost" or name.endswith(".localhost") or name == _own_name():
            return True
        return any(_fits(name, one.lower()) for one in self.names)

    def _is_own(self, origin: str, hosts: Collection[str]) -> bool:
        if origin.lower() in {one.lower().rstrip("/") for one in self.origins}:
            return True
        try:
            authority = urlsplit(origin).netloc.lower()
        except ValueError:
            return False
        return bool(authority) and any(authority == host.lower() for host in hosts)


@lru_cache(maxsize=512)
def _is_known(fence: Fence, host: str) -> bool:
    """Whether an authority is one of the fence's. Nearly all requests name the same one."""
    return fence.knows(_name_of(host))


def _name_of(host: str) -> str:
    """The name or address of an authority, without its port; empty for what is no authority."""
    found = _AUTHORITY.fullmatch(host)
    if found is None:
        return ""
    return (found["six"] or found["name"]).lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _fits(name: str, allowed: str) -> bool:
    return allowed in ("*", name) or (allowed.startswith("*.") and name.endswith(allowed[1:]))


@cache
def _own_name() -> str:
    return socket.gethostname().lower()
