"""The fence: which requests a web page in somebody's browser can't make."""

from __future__ import annotations

import pytest

from trunkline.core.access.fence import Fence

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:8080",
        "a.localhost",
        "127.0.0.1:8080",
        "127.9.9.9",
        "[::1]:80",
        "[::1]",
        "localhost.",
        "10.1.2.3",
    ],
)
def test_on_loopback_its_own_names_and_every_address_lead_to_it(host: str) -> None:
    assert Fence().refusal("GET", {}, [host], body=False) is None


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8080",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "a@localhost.evil",
        "",
        ".",
        "0x7f.1",
        "[::1].evil.example",
        "[::1",
        "[evil.example]",
        "127.0.0.1%.evil.example",
        "127.0.0.1%25evil.example",
        "localhost:80:80",
        "a@127.0.0.1",
        "localhost/",
    ],
)
def test_on_loopback_no_other_name_does(host: str) -> None:
    refused = Fence().refusal("GET", {}, [host], body=False)
    assert refused is not None
    assert refused.status == 421
    assert "TRUNKLINE_HOSTS" in refused.reason


def test_names_that_the_operator_gives_lead_to_it_also_all_of_a_domain() -> None:
    fence = Fence(names=("bus.example.com", "*.internal.example"))
    allowed = ["bus.example.com:443", "Bus.Example.COM", "a.internal.example", "a.b.internal.example"]
    refused = ["internal.example", "xbus.example.com", "evil.bus.example.com", "a.internal.example.evil"]
    assert [host for host in allowed + refused if fence.refusal("GET", {}, [host], body=False) is None] == allowed


def test_off_loopback_every_name_leads_to_it_until_some_are_named() -> None:
    assert Fence(loopback=False).refusal("GET", {}, ["worker.bus.svc"], body=False) is None
    assert Fence(loopback=False, names=("a.example",)).refusal("GET", {}, ["worker.bus.svc"], body=False) is not None


def test_a_request_that_names_two_hosts_is_none_that_anybody_means() -> None:
    assert Fence().refusal("GET", {}, ["localhost", "localhost"], body=False) is None
    refused = Fence().refusal("GET", {}, ["localhost", "127.0.0.1"], body=False)
    assert refused is not None
    assert refused.status == 400


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:8081"},
        {"origin": "http://[evil"},
        {"origin": ""},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_requests_of_other_pages_do_not_come_through(method: str, headers: dict[str, str]) -> None:
    refused = Fence().refusal(method, JSON | headers, ["localhost:8080"], body=True)
    assert refused is not None
    assert refused.status == 403


def test_requests_of_its_own_pages_and_of_named_ones_do() -> None:
    own = {"origin": "http://localhost:8080", "sec-fetch-site": "same-origin"}
    assert Fence().refusal("POST", JSON | own, ["localhost:8080"], body=True) is None
    named = {"origin": "https://Console.example", "sec-fetch-site": "cross-site"}
    fence = Fence(origins=("https://console.example/",))
    assert fence.refusal("POST", JSON | named, ["localhost:8080"], body=True) is None


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "text/plain",
        "Text/Plain; charset=utf-8",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain;application/json",
        "application/csp-report",
        "text/ping",
        "application/json, text/plain",
        "*/*",
        " text/plain ",
    ],
)
def test_a_body_of_a_type_that_browsers_send_unasked_is_refused(content_type: str) -> None:
    headers = {"content-type": content_type} if content_type else {}
    refused = Fence().refusal("POST", headers, ["localhost"], body=True)
    assert refused is not None
    assert refused.status == 415
    assert Fence(any_content=True).refusal("POST", headers, ["localhost"], body=True) is None
    assert Fence().refusal("POST", headers, ["localhost"], body=False) is None


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "Application/JSON; charset=utf-8",
        "application/octet-stream",
        "application/vnd.schemaregistry.v1+json",
    ],
)
def test_a_body_of_a_type_that_browsers_ask_about_first_comes_through(content_type: str) -> None:
    assert Fence().refusal("POST", {"content-type": content_type}, ["localhost"], body=True) is None
