"""Which addresses a request may reach. Checked on the very address that a socket is about to connect to.

A name is resolved once, by the connection pool; what is judged here is the resolved socket address, so a second answer of a
name server (DNS rebinding) has nothing to change. The table follows IANA's special-purpose address registries
(https://www.iana.org/assignments/iana-ipv4-special-registry, .../iana-ipv6-special-registry).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_REFUSED_V4: tuple[tuple[ipaddress.IPv4Network, str], ...] = tuple(
    (ipaddress.IPv4Network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "carrier-grade NAT"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "documentation"),
        ("192.88.99.0/24", "6to4 relay"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "benchmarking"),
        ("198.51.100.0/24", "documentation"),
        ("203.0.113.0/24", "documentation"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
    )
)
_REFUSED_V6: tuple[tuple[ipaddress.IPv6Network, str], ...] = tuple(
    (ipaddress.IPv6Network(network), what)
    for network, what in (
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("64:ff9b:1::/48", "local NAT64"),
        ("100::/64", "discard-only"),
        ("2001::/23", "IETF protocol assignments (Teredo, ORCHID, benchmarking)"),
        ("2001:db8::/32", "documentation"),
        ("3fff::/20", "documentation"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "site-local"),
        ("ff00::/8", "multicast"),
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")

_METADATA: dict[Address, str] = {
    ipaddress.ip_address(text): f"cloud metadata ({who})"
    for text, who in (
        ("169.254.169.254", "AWS, Azure, Google, and others"),
        ("169.254.170.2", "AWS ECS credentials"),
        ("169.254.170.23", "AWS EKS credentials"),
        ("fd00:ec2::254", "AWS"),
        ("fd00:ec2::23", "AWS EKS credentials"),
        ("fd20:ce::254", "Google"),
        ("100.100.100.200", "Alibaba"),
        ("168.63.129.16", "Azure"),
        ("192.0.0.192", "Oracle"),
    )
}
"""Addresses that hand out an instance's credentials: reachable only when named themselves, never by a range or a host name."""

_EMBEDDED_LOW = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "::ffff:0:0/96",
        "::ffff:0:0:0/96",
        "64:ff9b::/96",
        "::/96",
    )  # mapped, translated, NAT64, compatible
)
_SIX_TO_FOUR = ipaddress.IPv6Network("2002::/16")
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
_HOST_FORM = re.compile(r"^(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?$")
_NUMBER = re.compile(r"^(0[xX][0-9a-fA-F]*|[0-9]+)$")


def embedded_v4(address: Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address inside a mapped, translated, NAT64 (RFC 6052), 6to4 (RFC 3056) or ISATAP (RFC 5214) IPv6 address."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    number = int(address)
    if any(address in network for network in _EMBEDDED_LOW) and number > 1:
        return ipaddress.IPv4Address(number & 0xFFFF_FFFF)
    if address in _SIX_TO_FOUR:
        return ipaddress.IPv4Address((number >> 80) & 0xFFFF_FFFF)
    if (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        return ipaddress.IPv4Address(number & 0xFFFF_FFFF)
    return None


def refusal(address: Address) -> str | None:
    """Why `address` is not one of the open Internet's, or None when it is."""
    if address in _METADATA:
        return _METADATA[address]
    inner = embedded_v4(address)
    if inner is not None:
        reason = refusal(inner)
        return f"{reason}, as {inner}" if reason else None
    if isinstance(address, ipaddress.IPv4Address):
        return next((what for network, what in _REFUSED_V4 if address in network), None)
    for network, what in _REFUSED_V6:
        if address in network:
            return what
    return None if address in _GLOBAL_V6 else "not global unicast"


class AddressPolicy:
    """The open Internet's addresses, and the private ones that were allowed by name, address or CIDR."""

    def __init__(self, allowed: Iterable[str] = ()) -> None:
        self._networks: list[Network] = []
        self._hosts: set[str] = set()
        for entry in allowed:
            network = parse_network(entry)
            if network is not None:
                self._networks.append(network)
            else:
                self._hosts.add(_canonical_host(entry))

    def refusal(self, host: str, sockaddr: str) -> str | None:
        """Why a connection for `host` to the numeric address `sockaddr` is refused, or None when it may be made."""
        try:
            address = ipaddress.ip_address(sockaddr)
        except ValueError:
            return "not a numeric address"
        reason = refusal(address)
        if reason is None:
            return None
        candidates = [address, embedded_v4(address)]
        if any(candidate in _METADATA for candidate in candidates):
            named = {network.network_address for network in self._networks if network.num_addresses == 1}
            return None if any(candidate in named for candidate in candidates) else reason
        if _canonical_host(host) in self._hosts:
            return None
        for candidate in candidates:
            if candidate is not None and any(
                candidate.version == network.version and candidate in network for network in self._networks
            ):
                return None
        return reason


def parse_network(entry: str) -> Network | None:
    """`entry` as an address or CIDR, or None when it is a host name. Raises ValueError for what is neither."""
    try:
        return ipaddress.ip_network(entry.strip("[]"), strict=False)
    except ValueError:
        if "/" in entry or ":" in entry or not _HOST_FORM.match(entry.lower()) or odd_number(entry):
            raise ValueError(f"a host name, an address or a CIDR is expected, found {entry!r}") from None
        return None


def odd_number(host: str) -> bool:
    """Whether `host` is a number that is no dotted quad: `2130706433`, `0x7f.1`, `0177.0.0.1`, `127.1`.

    C libraries read such spellings as IPv4 addresses (inet_aton(3)); the URL standard calls a host whose last label is a
    number an IPv4 address or an error.
    """
    labels = host.rstrip(".").split(".")
    if not _NUMBER.match(labels[-1]):
        return False
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return True
    return False


def _canonical_host(host: str) -> str:
    return host.lower().rstrip(".")
