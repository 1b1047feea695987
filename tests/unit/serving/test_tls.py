"""TLS of a listener: files that change under it, and clients that must show a certificate."""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from tests.certificates import Issued, issue
from trunkline.core.errors import ConfigurationError
from trunkline.core.serving.doors import Doors
from trunkline.core.serving.listener import Listener
from trunkline.core.serving.tls import ServerTls, TlsFiles

AUTHORITY = issue("authority")
CLIENTS = issue("clients")


class Folder:
    """The files of a server, as something else writes and renews them."""

    def __init__(self, path: Path, *, clients: bool = False) -> None:
        self.files = TlsFiles(path / "cert.pem", path / "key.pem", path / "clients.pem" if clients else None)
        self.server = issue("first", AUTHORITY)
        self.write(self.server)
        if clients:
            (path / "clients.pem").write_text(CLIENTS.pem)

    def write(self, server: Issued) -> None:
        self.files.certificate.write_text(server.pem)
        self.files.key.write_text(server.key_pem)


@asynccontextmanager
async def listening(tls: ServerTls) -> AsyncIterator[Listener]:
    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=request.scheme)

    listener = Listener("test", ("127.0.0.1", 0), "", tls=tls)
    await listener.start(web.ServerRunner(web.Server(answer)))
    try:
        yield listener
    finally:
        await listener.stop()


async def ask(listener: Listener, client: Issued | None = None, folder: Path | None = None) -> tuple[str, bytes]:
    """The common name of the server's certificate, and what is answered. Raises what TLS says."""
    context = ssl.create_default_context(cadata=AUTHORITY.pem)
    if client is not None:
        assert folder is not None
        (folder / "own.pem").write_text(client.pem + client.key_pem)
        context.load_cert_chain(folder / "own.pem")
    host, port = listener.url.removeprefix("https://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
    finally:
        writer.close()
    name = x509.load_der_x509_certificate(certificate).subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    return str(name), answer


async def served(listener: Listener, client: Issued | None, folder: Path) -> bool:
    """Whether a client with this certificate is answered: refused under TLS 1.3 it learns it only when it reads."""
    try:
        return bool((await ask(listener, client, folder))[1])
    except (ssl.SSLError, ConnectionError):
        return False


async def test_what_listens_with_tls_says_so_and_answers(tmp_path: Path) -> None:
    async with listening(ServerTls(Folder(tmp_path).files)) as listener:
        assert listener.url.startswith("https://")
        name, answer = await ask(listener)
        assert name == "first"
        assert answer.endswith(b"https")


async def test_who_agrees_on_no_encryption_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trunkline.core.serving.listener.HANDSHAKE_SECONDS", 0.2)
    async with listening(ServerTls(Folder(tmp_path).files)) as listener:
        host, port = listener.url.removeprefix("https://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await reader.read() == b""
        writer.close()


async def test_a_renewed_certificate_counts_as_soon_as_both_files_are_there(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    tls = ServerTls(folder.files)
    async with listening(tls) as listener:
        renewed = issue("second", AUTHORITY)
        folder.files.certificate.write_text(renewed.pem)
        await tls.look()
        assert (await ask(listener))[0] == "first"  # the key is still the old one
        folder.files.key.write_text(renewed.key_pem)
        await tls.look()
        assert (await ask(listener))[0] == "second"
        folder.files.certificate.unlink()
        await tls.look()
        assert (await ask(listener))[0] == "second"


async def test_a_link_that_is_turned_to_other_files_counts_as_a_change(tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        issued = issue(name, AUTHORITY)
        (tmp_path / name / "tls.crt").write_text(issued.pem)
        (tmp_path / name / "tls.key").write_text(issued.key_pem)
    (tmp_path / "now").symlink_to("first")
    tls = ServerTls(TlsFiles(tmp_path / "now" / "tls.crt", tmp_path / "now" / "tls.key"))
    async with listening(tls) as listener:
        assert (await ask(listener))[0] == "first"
        (tmp_path / "next").symlink_to("second")
        (tmp_path / "next").replace(tmp_path / "now")
        await tls.look()
        assert (await ask(listener))[0] == "second"


async def test_clients_must_show_a_certificate_of_the_authority_that_counts_now(tmp_path: Path) -> None:
    folder = Folder(tmp_path, clients=True)
    tls = ServerTls(folder.files)
    others = issue("others")
    mine, other = issue("me", CLIENTS), issue("him", others)
    async with listening(tls) as listener:
        assert (await ask(listener, mine, tmp_path))[1].endswith(b"https")
        assert [await served(listener, one, tmp_path) for one in (None, other, mine)] == [False, False, True]
        assert folder.files.clients is not None
        folder.files.clients.write_text(others.pem)
        await tls.look()
        assert (await ask(listener, other, tmp_path))[1].endswith(b"https")
        assert [await served(listener, one, tmp_path) for one in (None, mine, other)] == [False, False, True]


def answered_over(port: int, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSession | None:
    """The session of a connection that was answered, to be resumed. Raises what TLS says."""
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        if not secure.recv(1):
            raise ConnectionError("not answered")
        return secure.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_from_before_lets_nobody_in_whose_authority_counts_no_more(
    tmp_path: Path, version: ssl.TLSVersion
) -> None:
    folder, mine = Folder(tmp_path, clients=True), issue("me", CLIENTS)
    (tmp_path / "own.pem").write_text(mine.pem + mine.key_pem)
    context = ssl.create_default_context(cadata=AUTHORITY.pem)
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(tmp_path / "own.pem")
    tls = ServerTls(folder.files)
    async with listening(tls) as listener:
        port = int(listener.url.rsplit(":", 1)[1])
        session = None
        with contextlib.suppress(ssl.SSLError, ConnectionError):  # whoever is not served has no session either
            session = await asyncio.to_thread(answered_over, port, context)
        assert folder.files.clients is not None
        folder.files.clients.write_text(issue("others").pem)
        await tls.look()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.to_thread(answered_over, port, context, session)


async def test_a_renewed_certificate_that_is_not_valid_now_does_not_count(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    tls = ServerTls(folder.files)
    async with listening(tls) as listener:
        folder.write(issue("expired", AUTHORITY, days=-1))
        await tls.look()
        assert (await ask(listener))[0] == "first"
        folder.write(issue("third", AUTHORITY))
        await tls.look()
        assert (await ask(listener))[0] == "third"


async def test_a_certificate_that_is_there_too_early_counts_when_its_time_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(tmp_path)
    tls = ServerTls(folder.files)
    async with listening(tls) as listener:
        now = dt.datetime.now(dt.UTC)
        monkeypatch.setattr(
            TlsFiles, "validity", lambda _self: (now + dt.timedelta(days=1), now + dt.timedelta(days=9))
        )
        folder.write(issue("early", AUTHORITY))
        await tls.look()
        assert (await ask(listener))[0] == "first"
        monkeypatch.undo()
        monkeypatch.setattr(tls, "_begins", now)  # its time has come
        await tls.look()
        assert (await ask(listener))[0] == "early"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda files: files.certificate.unlink(), "there is no file"),
        (lambda files: files.key.write_text(issue("x", AUTHORITY).key_pem), "no certificate and its key"),
        (lambda files: files.key.write_text("nothing"), "no certificate and its key"),
        (lambda files: files.clients.write_text("nothing"), "no certificate"),
    ],
)
async def test_files_that_can_not_be_used_are_named_before_anything_listens(
    tmp_path: Path, spoil: object, said: str
) -> None:
    folder = Folder(tmp_path, clients=True)
    spoil(folder.files)  # type: ignore[operator]
    listener = Listener("test", ("127.0.0.1", 0), "", tls=ServerTls(folder.files))
    with pytest.raises(ConfigurationError) as refusal:
        await listener.start(web.ServerRunner(web.Server(lambda _request: None)))  # type: ignore[arg-type, return-value]
    assert refusal.value.code == "tls.files"
    assert said in refusal.value.message
    assert str(tmp_path) in str(refusal.value.where)
    await listener.stop()


async def test_a_key_with_a_password_is_no_question_to_the_terminal(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

    folder = Folder(tmp_path)
    locked = folder.server.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"open"))
    folder.files.key.write_bytes(locked)
    with pytest.raises(ConfigurationError, match="password"):
        folder.files.load()


def test_a_certificate_without_its_key_is_no_option() -> None:
    with pytest.raises(ConfigurationError) as refusal:
        Doors.from_environment({"TRUNKLINE_API_TLS_CERT": "cert.pem"})
    assert refusal.value.code == "option.tls"
    assert "TRUNKLINE_API_TLS_KEY" in str(refusal.value.where)
    assert Doors.from_environment({"TRUNKLINE_API_TLS_CERT": "", "TRUNKLINE_INGRESS_TLS_KEY": ""}) == Doors()


@pytest.mark.parametrize(
    ("variable", "value", "code"),
    [
        ("TRUNKLINE_HOSTS", "https://bus.example.com", "option.hosts"),
        ("TRUNKLINE_HOSTS", "a.example,*", None),
        ("TRUNKLINE_HOSTS", "*.*.example", "option.hosts"),
        ("TRUNKLINE_ORIGINS", "console.example.com", "option.hosts"),
        ("TRUNKLINE_ORIGINS", "https://console.example.com, http://localhost:3000", None),
        ("TRUNKLINE_LOCAL_ROLE", "amdin", "option.access"),
        ("TRUNKLINE_LOCAL_ROLE", "none", None),
        ("TRUNKLINE_METRICS", "yes", "option.access"),
        ("TRUNKLINE_METRICS", "open", None),
    ],
)
def test_doors_are_set_up_by_variables_that_are_checked(variable: str, value: str, code: str | None) -> None:
    if code is None:
        assert Doors.from_environment({variable: value}) != Doors()
        return
    with pytest.raises(ConfigurationError) as refusal:
        Doors.from_environment({variable: value})
    assert (refusal.value.code, refusal.value.where) == (code, variable)
