"""Which addresses requests reach: a canary listens on loopback and must never be connected to unless it was allowed."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from hostile_requests import METADATA, TABLE, scripted_resolver
from http_counterpart import Counterpart, serving

from trunkline.core.http import AddressRefusedError, HttpClient, HttpOptions, NotSentError

pytestmark = pytest.mark.usefixtures("both_ways_out")

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
    async with HttpClient(HttpOptions(timeout=60)) as client:
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
    async with HttpClient(HttpOptions(allow_private=["0.0.0.0/0", "::/0", "metadata.internal"], timeout=60)) as client:
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
    # First an address of nobody, then loopback: what is connected to is what was checked.
    answers = iter([["203.0.113.7"], ["127.0.0.1"], ["127.0.0.1"]])
    answering(monkeypatch, {"rebind.example": answers})
    async with HttpClient(HttpOptions(timeout=60)) as client:
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
    monkeypatch.setattr(socket, "getaddrinfo", scripted_resolver(names))
