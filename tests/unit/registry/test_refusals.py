"""A registry that can't be asked: each reason has its code, names the URL, and says what to do."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.certificates import issue
from trunkline.core.errors import ConfigurationError, TrunklineError
from trunkline.registry.client import RegistryClient
from trunkline.registry.service import registry_app
from trunkline.registry.store import MemoryStore

FAST = {"max.retries": 0, "timeout": 1.0}


class Certificates:
    """An authority, and certificates that it signed; one file each."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        authority, stranger = issue("authority"), issue("another authority")
        self.authority, self.stranger = self._write("authority", authority.pem), self._write("stranger", stranger.pem)
        self.files = {
            "good": issue("registry", authority),
            "expired": issue("registry", authority, days=-1),
            "misnamed": issue("registry", authority, host="registry.example.com"),
        }
        for name, one in self.files.items():
            self._write(name, one.key_pem + one.pem)

    def _write(self, name: str, text: str) -> str:
        path = self._folder / f"{name}.pem"
        path.write_text(text)
        return str(path)

    def context(self, name: str) -> ssl.SSLContext:
        """What a server shows."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self._folder / f"{name}.pem")
        return context


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def ports(certificates: Certificates) -> AsyncIterator[dict[str, int]]:
    """The ports of one registry, plain and with each certificate."""
    app = web.Application()
    app.add_subapp("/registry", registry_app(MemoryStore()))
    runner = web.AppRunner(app)
    await runner.setup()
    contexts = {"plain": None, **{name: certificates.context(name) for name in certificates.files}}
    for context in contexts.values():
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    with asking_for_certificates(certificates) as mutual:
        yield {"mutual": mutual, **{name: address[1] for name, address in zip(contexts, runner.addresses, strict=True)}}
    await runner.cleanup()


@contextmanager
def asking_for_certificates(certificates: Certificates) -> Iterator[int]:
    """The port of a server that wants a client's certificate. Not asyncio's, which ends a refused handshake without an alert."""
    context = certificates.context("good")
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates.authority)

    class Server(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            """A refused handshake is what is asked for."""

        def get_request(self) -> Any:
            connection, address = super().get_request()
            return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), address

    server = Server(("127.0.0.1", 0), SimpleHTTPRequestHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of something that takes connections and never says a word."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        port: int = listening.getsockname()[1]
        yield port


@dataclass(frozen=True)
class Case:
    """Where it is asked, and what is said of it."""

    scheme: str
    port: str
    code: str
    says: str
    hint: str
    authority: str | None = None


CASES = {
    "TLS where there is none": Case("https", "plain", "registry.tls_to_plaintext", "wrong version", "http://"),
    "plain requests to TLS": Case("http", "good", "registry.plaintext_to_tls", "TLS handshake", "https://"),
    "no authority": Case("https", "good", "registry.tls_ca", "unable to get local issuer", "SSL_CA_LOCATION"),
    "another authority": Case("https", "good", "registry.tls_ca", "issuer", "SSL_CA_LOCATION", "stranger"),
    "a certificate that has expired": Case("https", "expired", "registry.tls_expired", "expired", "renew", "authority"),
    "a certificate for another name": Case(
        "https", "misnamed", "registry.tls_hostname", "not valid for '127.0.0.1'", "subjectAltName", "authority"
    ),
    "no client certificate": Case(
        "https", "mutual", "registry.tls_client_certificate", "certificate required", "SSL_KEY_LOCATION", "authority"
    ),
}


async def refusal_of(url: str, options: dict[str, Any]) -> TrunklineError:
    """What is said of a registry that can't be asked."""

    def ask() -> None:
        client = RegistryClient(url, options)
        try:
            client.subjects()
        finally:
            client.close()

    with pytest.raises(TrunklineError) as refused:
        await asyncio.to_thread(ask)
    return refused.value


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
async def test_a_client_with(case: Case, ports: dict[str, int], certificates: Certificates) -> None:
    url = f"{case.scheme}://127.0.0.1:{ports[case.port]}/registry"
    options = dict(FAST)
    if case.authority is not None:
        options["ssl.ca.location"] = getattr(certificates, case.authority)

    error = await refusal_of(url, options)

    assert (error.code, error.exit_code) == (case.code, 3)
    assert url in error.message
    assert case.says in error.message
    assert case.hint in (error.hint or "")


async def test_who_trusts_the_right_authority_is_answered(ports: dict[str, int], certificates: Certificates) -> None:
    url = f"https://127.0.0.1:{ports['good']}/registry"
    client = RegistryClient(url, {**FAST, "ssl.ca.location": certificates.authority})

    assert await asyncio.to_thread(client.subjects) == []
    client.close()


@pytest.mark.parametrize("options", [FAST, {}], ids=["as one elsewhere", "as one on this machine"])
async def test_a_port_on_which_nobody_listens(options: dict[str, Any]) -> None:
    error = await refusal_of("http://127.0.0.1:1", options)

    assert error.code == "registry.refused"
    assert "http://127.0.0.1:1" in error.message


async def test_a_name_that_nobody_has() -> None:
    error = await refusal_of("http://no-such-registry.invalid", FAST)

    assert error.code == "registry.unknown_host"
    assert "no-such-registry.invalid" in error.message


async def test_one_that_never_answers(silent: int) -> None:
    error = await refusal_of(f"http://127.0.0.1:{silent}", FAST)

    assert error.code == "registry.timeout"


async def test_an_authoritys_file_that_is_not_there(ports: dict[str, int], tmp_path: Path) -> None:
    missing = str(tmp_path / "none.pem")
    error = await refusal_of(f"https://127.0.0.1:{ports['good']}", {**FAST, "ssl.ca.location": missing})

    assert (error.code, error.exit_code) == ("registry.tls_ca", 3)
    assert missing in error.message
    assert "SSL_CA_LOCATION" in (error.where or "")


async def test_what_is_no_url_is_wrong_input() -> None:
    error = await refusal_of("http://127.0.0.1:8081:9092", {})

    assert isinstance(error, ConfigurationError)
    assert "http://127.0.0.1:8081:9092" in error.message
