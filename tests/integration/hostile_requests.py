"""Addresses that no request may reach, values that would break out of a request, and a resolver that answers by a script."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import Any

LOOPBACK_SPELLINGS = """
127.0.0.1 127.0.0.2 127.1.2.3 127.255.255.254 127.1 127.0.1 2130706433 0x7f000001 0x7f.0.0.1 0x7f.1 0177.0.0.1 0177.1
017700000001 127.0.0.0x1 127.00.00.01 0x7F000001 0x7f.0x0.0x0.0x1 0177.0.0.01 4294967295 0 0x0 00000000000 127.0.0.1.
[::1] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [0:0:0:0:0:ffff:7f00:0001] [::127.0.0.1] [::7f00:1]
[::ffff:0:127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1] [2002:7f00:1::] [2002:7f00:0001::1]
[2606:4700::5efe:7f00:1] [2606:4700::200:5efe:7f00:1] [::] 0.0.0.0 0.0.0.1 0.1.2.3 localhost LOCALHOST ①②⑦.⓪.⓪.①
１２７.0.0.1 127。0。0。1 %31%32%37.0.0.1 127.0.0.1%00.example.com
"""
PRIVATE = """
10.0.0.1 10.255.255.255 10.1 167772161 0xa000001 012.0.0.1 172.16.0.1 172.20.10.1 172.31.255.255 192.168.0.1 192.168.255.255
192.168.1 3232235521 0xc0a80001 100.64.0.1 100.100.1.1 100.127.255.254 169.254.0.1 169.254.255.254 [fe80::1] [fe80::1%25lo]
[febf::1] [fec0::1] [fc00::1] [fd00::1] [fd12:3456:789a::1] [::ffff:10.0.0.1] [::ffff:192.168.1.1] [::ffff:100.64.0.1]
[64:ff9b::10.0.0.1] [64:ff9b::192.168.0.1] [2002:a00:1::] [2002:c0a8:1::1] [2002:6440:1::]
"""
METADATA = """
169.254.169.254 169.254.170.2 169.254.170.23 2852039166 0xa9fea9fe 0xa9.0xfe.0xa9.0xfe 0251.0376.0251.0376 169.254.43518
[::ffff:169.254.169.254] [::ffff:a9fe:a9fe] [64:ff9b::a9fe:a9fe] [2002:a9fe:a9fe::] [fd00:ec2::254] [fd00:ec2::23]
100.100.100.200 168.63.129.16 [::ffff:168.63.129.16] 192.0.0.192 [fd20:ce::254]
"""
RESERVED = """
192.0.0.1 192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1
255.255.255.255 [ff02::1] [ff0e::1] [100::1] [2001::1] [2001:0:4136:e378:8000:63bf:3fff:fdd2] [2001:2::1] [2001:10::1]
[2001:db8::1] [3fff::1] [5f00::1] [4000::1] [::ffff:224.0.0.1] [::8.8.8.8.] [1::1]
"""
TABLE = f"{LOOPBACK_SPELLINGS} {PRIVATE} {METADATA} {RESERVED}".split()
"""Hosts as they may stand in a URL."""

BREAKS = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    "\r\n\r\nGET / HTTP/1.1",
    "\x0b",
    "\x0c",
    "\x1b",
    "\x7f",
    "\x08",
    "\r\nSet-Cookie: a=b",
    "\ud800",
]
PLACES = ["{}", "a{}", "{}b", "a{}b", "%0d{}"]
CRLF = [place.format(text) for text in BREAKS for place in PLACES]
"""Values that would break out of a header or a URL."""


def scripted_resolver(names: Mapping[str, Any]) -> Callable[..., Any]:
    """A `socket.getaddrinfo` that gives these addresses for these names; of an iterator the next ones at each question."""
    real = socket.getaddrinfo

    def scripted(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in names:
            return real(host, port, *args, **kwargs)
        found = names[host] if isinstance(names[host], list) else next(names[host])
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in found
        ]

    return scripted
