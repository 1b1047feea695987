"""TLS of outgoing requests: who is trusted, and under which name. The same on both ways out."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from http_counterpart import read_request

from trunkline.core.errors import ConfigurationError
from trunkline.core.http import HttpClient, HttpOptions, NoAnswerError, NotSentError

pytestmark = pytest.mark.usefixtures("both_ways_out")


def certificate(folder: Path) -> Path:
    """A certificate of its own authority with its key, for 127.0.0.1 and right.example."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("right.example")]
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    pem = serialization.Encoding.PEM
    path.write_bytes(
        made.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return path


@asynccontextmanager
async def tls_serving(pem: Path) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answers with the name that the client asked for by SNI; `arrived` has the requests."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(pem)
    names: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    arrived: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                arrived.append(await read_request(reader))
                if arrived[-1].endswith(b"hang up"):
                    return
                text = str(names[-1] if names else None).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1], arrived
    finally:
        server.close()


def options(ca_file: Path | None = None) -> HttpOptions:
    return HttpOptions(
        allow_private=["127.0.0.1", "right.example", "wrong.example"],
        ca_file=str(ca_file) if ca_file else None,
        timeout=10,
    )


@pytest.fixture
def names_of_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo

    def resolved(host: Any, *args: Any, **kwargs: Any) -> Any:
        return real("127.0.0.1" if str(host).endswith(".example") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolved)


async def test_an_authority_that_was_named_is_trusted_and_the_connection_is_kept(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    async with tls_serving(pem) as (port, arrived), HttpClient(options(pem)) as client:
        for _ in range(3):
            assert (await client.request("POST", f"https://127.0.0.1:{port}/", content=b"x" * 100_000)).ok
    assert [len(request) > 100_000 for request in arrived] == [True] * 3


@pytest.mark.usefixtures("names_of_loopback")
async def test_the_certificate_must_have_the_name_that_was_asked_for(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    async with tls_serving(pem) as (port, arrived), HttpClient(options(pem)) as client:
        assert (await client.request("POST", f"https://right.example:{port}/")).text == "right.example"
        with pytest.raises(NotSentError, match=r"no connection: TLS: .*wrong\.example"):
            await client.request("POST", f"https://wrong.example:{port}/")
    assert len(arrived) == 1


async def test_an_unknown_authority_is_not_trusted(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    async with tls_serving(pem) as (port, arrived), HttpClient(options()) as client:
        with pytest.raises(NotSentError, match=r"no connection: TLS: self.signed"):
            await client.request("POST", f"https://127.0.0.1:{port}/")
    assert arrived == []


async def test_a_connection_that_ends_before_the_answer_has_an_unknown_effect(tmp_path: Path) -> None:
    pem = certificate(tmp_path)
    async with tls_serving(pem) as (port, arrived), HttpClient(options(pem)) as client:
        assert (await client.request("POST", f"https://127.0.0.1:{port}/", content=b"x")).ok
        with pytest.raises(NoAnswerError):
            await client.request("POST", f"https://127.0.0.1:{port}/", content=b"hang up")
    assert len(arrived) == 2


async def test_a_file_of_authorities_that_is_none_is_an_error_of_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("nothing")
    async with HttpClient(options(tmp_path / "no.pem")) as client:
        with pytest.raises(ConfigurationError, match=r"the CA file .* can't be used"):
            await client.request("POST", "https://127.0.0.1:9/")
