"""Which addresses requests reach: a canary listens on loopback and must never be connected to unless it was allowed."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from http_counterpart import Counterpart, serving

from trunkline.core.http import AddressRefusedError, HttpClient, HttpOptions, NotSentError

pytestmark = pytest.mark.usefixtures("both_ways_out")

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
SCHEMES = [
    "ftp://127.0.0.1/",
    "file:///etc/passwd",
    "gopher://127.0.0.1/",
    "//127.0.0.1/",
    "127.0.0.1/",
    "unix:///run/x",
    "http:///x",
]


@pytest.fixture
async def canary() -> AsyncIterator[Counterpart]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="reached")

    async with serving(answer) as counterpart:
        yield counterpart


def test_the_table_holds_at_least_120_addresses() -> None:
    assert len(set(TABLE)) >= 120


async def test_no_spelling_of_a_private_address_is_connected_to(canary: Counterpart) -> None:
    reached = []
    async with HttpClient(HttpOptions(timeout=3)) as client:
        for host in TABLE:
            try:
                response = await client.request("GET", f"http://{host}:{canary.port}/")
                reached.append((host, response.status))
            except AddressRefusedError:
                continue
            except NotSentError as error:
                reached.append((host, str(error)))
    assert reached == []
    assert canary.requests == []


@pytest.mark.parametrize("url", SCHEMES)
async def test_other_schemes_and_hostless_urls_are_refused(url: str) -> None:
    async with HttpClient() as client:
        with pytest.raises(AddressRefusedError):
            await client.request("GET", url)


@pytest.mark.parametrize("allowed", ["127.0.0.1", "127.0.0.0/8", "localhost", "LocalHost."])
async def test_an_address_that_was_allowed_by_name_is_reached(canary: Counterpart, allowed: str) -> None:
    host = "localhost" if "ocal" in allowed else "127.0.0.1"
    async with HttpClient(HttpOptions(allow_private=[allowed])) as client:
        assert (await client.request("GET", f"http://{host}:{canary.port}/")).text == "reached"


async def test_allowing_one_name_allows_no_other_name_of_the_same_address(
    canary: Counterpart, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering(monkeypatch, {"good.example": ["127.0.0.1"], "evil.example": ["127.0.0.1"]})
    async with HttpClient(HttpOptions(allow_private=["good.example"])) as client:
        assert (await client.request("GET", f"http://good.example:{canary.port}/")).ok
        with pytest.raises(AddressRefusedError, match=r"evil\.example is 127\.0\.0\.1: refused, loopback"):
            await client.request("GET", f"http://evil.example:{canary.port}/")
    assert len(canary.requests) == 1


async def test_a_range_never_includes_the_metadata_addresses() -> None:
    async with HttpClient(HttpOptions(allow_private=["0.0.0.0/0", "::/0", "metadata.internal"], timeout=2)) as client:
        for host in METADATA.split():
            with pytest.raises(AddressRefusedError):
                await client.request("GET", f"http://{host}:9/")


async def test_a_name_that_resolves_to_a_private_address_is_refused(
    canary: Counterpart, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address in ("127.0.0.1", "10.0.0.1", "169.254.169.254", "100.64.0.1", "::1", "::ffff:127.0.0.1"):
        answering(monkeypatch, {"inside.example": [address]})
        async with HttpClient() as client:
            with pytest.raises(AddressRefusedError):
                await client.request("GET", f"http://inside.example:{canary.port}/")
    assert canary.requests == []


async def test_a_name_with_several_private_addresses_is_refused_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    answering(monkeypatch, {"many.example": ["::1", "127.0.0.1", "10.0.0.1"]})
    async with HttpClient() as client:
        with pytest.raises(AddressRefusedError):
            await client.request("GET", "http://many.example/")


async def test_a_name_server_that_changes_its_answer_gains_nothing(
    canary: Counterpart, monkeypatch: pytest.MonkeyPatch
) -> None:
    # First a public address (where nothing answers in time), then loopback: what is connected to is what was checked.
    answers = iter([["203.0.113.7"], ["127.0.0.1"], ["127.0.0.1"]])
    answering(monkeypatch, {"rebind.example": answers})
    async with HttpClient(HttpOptions(timeout=1)) as client:
        for _ in range(3):
            with pytest.raises(AddressRefusedError):
                await client.request("GET", f"http://rebind.example:{canary.port}/")
            assert client._session is not None
            client._session._session.connector.clear_dns_cache()  # type: ignore[union-attr]
    assert canary.requests == []


async def test_redirects_are_checked_like_first_addresses(canary: Counterpart) -> None:
    for target in ("http://127.2.2.2:{port}/", "http://127.1:{port}/", "http://[::1]:{port}/", "//127.2.2.2:{port}/"):

        async def away(_: web.Request, target: str = target) -> web.Response:
            raise web.HTTPFound(target.format(port=canary.port))

        async with (
            serving(away) as door,
            HttpClient(HttpOptions(allow_private=["127.0.0.1/32"])) as client,
        ):
            with pytest.raises(AddressRefusedError):
                await client.request("GET", door.url, follow_redirects=True)
    assert canary.requests == []


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "http://user:pw@127.0.0.1/", "ftp://127.0.0.1/", "http://[::/"]
)
async def test_a_redirect_to_something_else_than_http_is_refused(target: str) -> None:
    async def away(_: web.Request) -> web.Response:
        return web.Response(status=302, headers={"Location": target})

    async with serving(away) as door, HttpClient(HttpOptions(allow_private=["127.0.0.1"])) as client:
        with pytest.raises(AddressRefusedError):
            await client.request("GET", door.url, follow_redirects=True)


async def test_proxy_variables_are_ignored(canary: Counterpart, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=500)

    async with serving(refuse) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with HttpClient(HttpOptions(allow_private=["127.0.0.1"])) as client:
            assert (await client.request("GET", canary.url)).text == "reached"
        assert proxy.requests == []


@pytest.mark.parametrize("entry", ["", "10.0.0.0/33", "a b", "http://x", "127.1", "0x7f000001", "*", "-x.example"])
def test_an_entry_that_names_neither_host_nor_network_is_refused(entry: str) -> None:
    with pytest.raises(ValueError, match="host name, an address or a CIDR"):
        HttpOptions(allow_private=[entry])


def answering(monkeypatch: pytest.MonkeyPatch, names: dict[str, Any]) -> None:
    """The system's resolver gives these addresses; of an iterator the next ones at each question."""
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

    monkeypatch.setattr(socket, "getaddrinfo", scripted)
