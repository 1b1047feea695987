"""The ingress: which source a path leads to, and which name a request may come under."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import yarl

from trunkline.bus.source.answers import Answer
from trunkline.bus.source.ingress import Ingress
from trunkline.core.contracts import Request
from trunkline.core.serving.doors import Doors


class Source:
    """What the ingress asks of a plug-in."""

    max_body = 100

    def __init__(self, path: str, *, anonymous: bool) -> None:
        self.path = path
        self.anonymous = anonymous


class Receiver:
    """A pipeline that takes whatever comes to it."""

    def __init__(self, path: str, *, anonymous: bool = False) -> None:
        self.pipeline = path
        self.source = Source(path, anonymous=anonymous)

    async def receive(self, request: Request) -> Answer:
        return Answer(202, self.pipeline.encode())


@pytest.fixture
async def ingress() -> AsyncIterator[Ingress]:
    made = Ingress(Doors().ingress(("127.0.0.1", 0), None))
    for receiver in (Receiver("/hooks/open", anonymous=True), Receiver("/hooks/signed"), Receiver("/hooks/ü")):
        await made.add(receiver)  # type: ignore[arg-type]
    yield made
    await made.stop()


async def ask(ingress: Ingress, path: str, **headers: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session:
        url = yarl.URL(ingress.url + path, encoded=True)
        async with session.post(url, data=b"{}", headers=headers) as answer:
            return answer.status, await answer.text()


@pytest.mark.parametrize("path", ["/hooks/open", "/hooks/%6fpen", "/%68ooks/open", "/hooks/open?a=%2f"])
async def test_a_path_leads_to_its_source_however_it_is_escaped(ingress: Ingress, path: str) -> None:
    assert await ask(ingress, path) == (202, "/hooks/open")
    assert await ask(ingress, "/hooks/%C3%BC") == (202, "/hooks/ü")


@pytest.mark.parametrize(
    "path",
    [
        "/hooks%2fopen",
        "/hooks%2Fopen",
        "/hooks/open/",
        "//hooks/open",
        "/hooks/./open",
        "/x/../hooks/open",
        "/hooks/OPEN",
    ],
)
async def test_what_only_looks_like_a_path_leads_nowhere(ingress: Ingress, path: str) -> None:
    assert (await ask(ingress, path))[0] == 404


async def test_pages_in_browsers_reach_no_source(ingress: Ingress) -> None:
    for path in ("/hooks/open", "/hooks/signed"):
        for headers in ({"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Origin": "null"}):
            assert (await ask(ingress, path, **headers))[0] == 403
    assert (await ask(ingress, "/hooks/open", Host="evil.example"))[0] == 421


async def test_what_proves_its_sender_may_come_under_any_name(ingress: Ingress) -> None:
    assert (await ask(ingress, "/hooks/signed", Host="hooks.example.com"))[0] == 202
