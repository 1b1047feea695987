"""The SFTP sink against OpenSSH's own server and against the mock: one suite for both."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import json
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncssh
import fastavro
import pytest
from pydantic import ValidationError
from sftp_servers import CutLine, Server, mocked, openssh

from sinks.sftp.settings import SftpConnection, SftpSinkSettings
from sinks.sftp.sink import SftpSink
from trunkline.core.contracts import Batch, PluginContext
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.event import Event
from trunkline.core.log import get_logger
from trunkline.core.secret import Secret
from trunkline.core.verdicts import Dead, Ok, Retry

SCHEMA = SimpleNamespace(
    id=1,
    name="Flight",
    json={
        "type": "record",
        "name": "Flight",
        "fields": [{"name": "n", "type": "long"}, {"name": "text", "type": "string"}],
    },
)


@pytest.fixture(params=["openssh", "mock", "mock without posix-rename"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    kind = request.param
    async with openssh(tmp_path) if kind == "openssh" else mocked(tmp_path, posix_rename=kind == "mock") as found:
        yield found


@pytest.fixture
async def mock(tmp_path: Path) -> AsyncIterator[Server]:
    async with mocked(tmp_path) as found:
        yield found


@asynccontextmanager
async def opened(server: Server, connection: SftpConnection | None = None, **config: Any) -> AsyncIterator[SftpSink]:
    settings = SftpSinkSettings.model_validate({"folder": server.path, **config})
    sink = SftpSink(settings, connection or server.connection())
    try:
        await sink.open(PluginContext("ns", "out", server.folder, get_logger("test")))
        yield sink
    finally:
        await sink.close()


def batch_of(count: int = 3, *, name: str = "R", attempt: int = 1, width: int = 10) -> Batch:
    values = [{"n": n, "text": f"{n:x}".rjust(width, "ü")} for n in range(count)]
    return Batch([Event(v, schema=SCHEMA, topic="t", offset=n) for n, v in enumerate(values)], name, attempt)


def read_back(content: bytes) -> list[tuple[int, str]]:
    found = csv.DictReader(io.StringIO(content.decode(), newline=""))
    return [(int(row["n"]), row["text"]) for row in found]


def expected(batch: Batch) -> list[tuple[int, str]]:
    return [(event.value["n"], event.value["text"]) for event in batch.events]


# --- what arrives -----------------------------------------------------------------------------------------------------


async def test_a_batch_becomes_one_complete_file_in_each_format(server: Server) -> None:
    batch = batch_of(5_000, width=100)
    for kind in ("csv", "jsonl", "avro"):
        async with opened(server, format=kind) as sink:
            verdicts = await sink.write(batch)
        where = f"{server.path.rstrip('/')}/R.{kind}"
        assert verdicts == [Ok(f"{where}#{row}") for row in range(1, 5_001)]
    files = server.files()
    assert sorted(files) == ["R.avro", "R.csv", "R.jsonl"]
    assert read_back(files["R.csv"]) == expected(batch)
    assert [tuple(json.loads(line).values()) for line in files["R.jsonl"].splitlines()] == expected(batch)
    assert [(row["n"], row["text"]) for row in fastavro.reader(io.BytesIO(files["R.avro"]))] == expected(batch)


async def test_a_manifest_tells_size_checksum_and_count_of_what_lies_there(server: Server) -> None:
    async with opened(server, manifest=True, name="{pipeline}-{range}.csv", permissions="0600") as sink:
        await sink.write(batch_of())
    files = server.files()
    manifest = json.loads(files["out-R.csv.manifest.json"])
    assert manifest["size"] == len(files["out-R.csv"])
    assert manifest["sha256"] == hashlib.sha256(files["out-R.csv"]).hexdigest()
    assert manifest["count"] == 3
    assert (server.folder / "out-R.csv").stat().st_mode & 0o777 == 0o600


async def test_a_bad_record_is_dead_and_its_neighbours_arrive(server: Server) -> None:
    batch = batch_of()
    batch.events[1].value["text"] = "\ud800"
    async with opened(server) as sink:
        verdicts = await sink.write(batch)
    assert [type(verdict) for verdict in verdicts] == [Ok, Dead, Ok]
    assert [n for n, _ in read_back(server.files()["R.csv"])] == [0, 2]


async def test_a_range_written_again_leaves_file_and_manifest_untouched(server: Server) -> None:
    async with opened(server, manifest=True) as sink:
        first = await sink.write(batch_of())
    before = {path.name: (path.stat().st_ino, path.read_bytes()) for path in server.folder.iterdir()}
    async with opened(server, manifest=True) as sink:
        assert await sink.write(batch_of()) == first
    assert {path.name: (path.stat().st_ino, path.read_bytes()) for path in server.folder.iterdir()} == before


async def test_a_file_of_other_content_is_replaced_also_when_it_has_the_same_size(server: Server) -> None:
    async with opened(server) as sink:
        await sink.write(batch_of())
        whole = server.files()["R.csv"]
        for wrong in (b"short", bytes(len(whole))):
            (server.folder / "R.csv").write_bytes(wrong)
            await sink.write(batch_of(attempt=2))
            assert server.files() == {"R.csv": whole}


async def test_many_uploads_share_one_connection(server: Server) -> None:
    async with opened(server) as sink:
        await asyncio.gather(*(sink.write(batch_of(name=f"R{number}")) for number in range(8)))
        if server.mock is not None:
            assert server.mock.sessions == 1
        else:
            assert sum("Accepted publickey" in line for line in server.log) == 1
    assert len(server.files()) == 8


async def test_files_are_written_elsewhere_first_when_a_temporary_folder_is_given(server: Server) -> None:
    parts = f"{server.path.rstrip('/')}/incoming/parts"
    (server.folder / "incoming").mkdir()
    (server.folder / "incoming" / "parts").mkdir()
    (server.folder / "incoming" / "parts" / ".R.csv.01234567.part").write_text("half")
    async with opened(server, temporary_folder=parts) as sink:
        await sink.write(batch_of())
    assert list(server.files()) == ["R.csv"]
    assert list((server.folder / "incoming" / "parts").iterdir()) == []


async def test_a_folder_is_made_only_on_request(server: Server) -> None:
    folder = f"{server.path.rstrip('/')}/a/b"
    with pytest.raises(ConfigurationError, match="has no folder"):
        async with opened(server, folder=folder):
            pass
    async with opened(server, folder=folder, create_folder=True) as sink:
        await sink.write(batch_of())
    assert [path.name for path in (server.folder / "a" / "b").iterdir()] == ["R.csv"]


# --- crashes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_line_cut_anywhere_leaves_no_partial_file_and_the_next_attempt_completes_it(
    server: Server, way: str
) -> None:
    batch = batch_of(400, width=200)

    async def one(line: CutLine) -> Any:
        async with opened(server, server.connection(port=line.port), manifest=True) as sink:
            before = dict(line.passed)
            verdicts = await sink.write(batch)
            return verdicts, before, dict(line.passed)

    async with CutLine(server.port) as line:
        _, before, after = await one(line)
    whole = server.files()["R.csv"]
    assert read_back(whole) == expected(batch)
    start, end = before[way], after[way]
    # Evenly over the whole upload, then closely where small packets carry fsync, close, rename and the manifest.
    points = [start + (end - start) * step // 4 for step in range(4)]
    points += [end - step * 180 for step in range(1, 10)]
    fired = retried = 0
    for limit in sorted({max(point, start + 1) for point in points}):
        for path in server.folder.iterdir():
            path.unlink()
        async with CutLine(server.port, way, limit) as line:
            verdicts, _, _ = await one(line)
            fired += line.cut
        retried += isinstance(verdicts[0], Retry)
        files = server.files()
        assert files.get("R.csv", whole) == whole
        if "R.csv.manifest.json" in files:
            assert json.loads(files["R.csv.manifest.json"])["sha256"] == hashlib.sha256(files["R.csv"]).hexdigest()
        if isinstance(verdicts[0], Ok):
            assert files["R.csv"] == whole
        async with opened(server, manifest=True) as sink:
            assert all(isinstance(verdict, Ok) for verdict in await sink.write(batch))
        files = server.files()
        assert sorted(files) == ["R.csv", "R.csv.manifest.json"]
        assert files["R.csv"] == whole
    assert fired >= len(points) // 2, "the cuts did not happen"
    assert retried >= fired // 2


async def test_a_killed_session_of_openssh_is_retried_on_a_new_connection(tmp_path: Path) -> None:
    async with openssh(tmp_path) as server, opened(server) as sink:
        assert isinstance((await sink.write(batch_of(name="R1")))[0], Ok)
        for pid in children(server.pid):
            os.kill(pid, signal.SIGKILL)
        verdicts = [await sink.write(batch_of(name="R2")) for _ in range(2)]
        assert isinstance(verdicts[0][0], Retry)
        assert isinstance(verdicts[1][0], Ok)
        assert sorted(server.files()) == ["R1.csv", "R2.csv"]


def children(pid: int) -> list[int]:
    """The processes below `pid`, from Linux's /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            if parent == pid:
                found += [int(entry.name), *children(int(entry.name))]
    return found


# --- failures ---------------------------------------------------------------------------------------------------------


async def test_a_wrong_host_key_is_refused_with_both_fingerprints(server: Server) -> None:
    other = asyncssh.generate_private_key("ssh-ed25519")
    right = asyncssh.import_public_key(server.host_key).get_fingerprint()
    for pin in (other.export_public_key().decode(), other.get_fingerprint()):
        with pytest.raises(FatalError) as raised:
            async with opened(server, server.connection(host_keys=[pin])):
                pass
        assert raised.value.code == "sftp.host_key"
        assert right in raised.value.message
        assert other.get_fingerprint() in raised.value.message
    assert server.files() == {}


async def test_a_host_key_of_another_kind_is_refused_too(server: Server) -> None:
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256").export_public_key().decode()
    with pytest.raises(FatalError, match=r"shows the host key SHA256:.*ssh-ed25519.*pinned is SHA256:"):
        async with opened(server, server.connection(host_keys=[other])):
            pass


async def test_a_fingerprint_or_one_of_several_pins_is_enough(server: Server) -> None:
    right = asyncssh.import_public_key(server.host_key).get_fingerprint()
    other = asyncssh.generate_private_key("ssh-ed25519").export_public_key().decode()
    scanned = f"[127.0.0.1]:{server.port} {server.host_key}"
    for pins in ([right], [other, right], [other, server.host_key], [scanned]):
        async with opened(server, server.connection(host_keys=pins)) as sink:
            assert isinstance((await sink.write(batch_of()))[0], Ok)


async def test_refused_credentials_stop_the_pipeline_and_are_not_shown(server: Server) -> None:
    stranger = asyncssh.generate_private_key("ssh-ed25519").export_private_key().decode()
    for wrong in (
        {"private_key": None, "password": Secret.of("not-the-password")},
        {"private_key": Secret.of(stranger)},
    ):
        with pytest.raises(FatalError, match="refuses the user") as raised:
            async with opened(server, server.connection(**wrong)):
                pass
        assert raised.value.code == "sftp.denied"
        assert "not-the-password" not in str(raised.value)
        assert "PRIVATE KEY" not in str(raised.value)


async def test_a_folder_that_vanished_stops_the_pipeline(mock: Server) -> None:
    async with opened(mock) as sink:
        mock.folder.rmdir()
        with pytest.raises(FatalError, match="has no folder"):
            await sink.write(batch_of())


async def test_a_folder_that_bears_the_files_name_stops_the_pipeline(server: Server) -> None:
    (server.folder / "R.csv").mkdir()
    async with opened(server) as sink:
        with pytest.raises(FatalError, match="is a folder"):
            await sink.write(batch_of())


@pytest.mark.parametrize("name", ["../../tmp/x", "a/b", "..", ".ssh", "x\0y", "x\ny", "-rf"])
async def test_a_name_that_leads_elsewhere_writes_nothing(mock: Server, name: str) -> None:
    async with opened(mock, name="{range}") as sink:
        with pytest.raises(FatalError, match="no file can be named so"):
            await sink.write(batch_of(name=name))
    assert mock.files() == {}
    assert list(mock.folder.parent.iterdir()) == [mock.folder]


async def test_a_planted_link_is_replaced_and_never_written_through(server: Server, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("untouched")
    (server.folder / "R.csv").symlink_to(secret)
    async with opened(server) as sink:
        assert isinstance((await sink.write(batch_of()))[0], Ok)
    assert secret.read_text() == "untouched"
    assert not (server.folder / "R.csv").is_symlink()


async def test_what_died_attempts_at_this_range_left_is_removed_and_nothing_else(server: Server) -> None:
    for name in (".R.csv.0123abcd.part", ".R2.csv.0123abcd.part"):
        (server.folder / name).write_text("half")
    async with opened(server) as sink:
        await sink.write(batch_of())
    assert sorted(server.files()) == [".R2.csv.0123abcd.part", "R.csv"]


async def test_foreign_files_with_names_that_are_no_text_are_no_obstacle(server: Server) -> None:
    strange = os.fsencode(server.folder) + b"/\xff\xfe\n..part"
    os.close(os.open(strange, os.O_CREAT | os.O_WRONLY))
    async with opened(server) as sink:
        assert isinstance((await sink.write(batch_of()))[0], Ok)
    assert len(list(server.folder.iterdir())) == 2


class DropBox(asyncssh.SFTPServer):
    """A folder that takes files and shows none, as partners' servers often are."""

    def scandir(self, path: bytes) -> Any:
        raise asyncssh.SFTPPermissionDenied("no listing here")

    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        if not pflags & asyncssh.FXF_WRITE:
            raise asyncssh.SFTPPermissionDenied("no reading here")
        return super().open(path, pflags, attrs)


class ReadOnly(asyncssh.SFTPServer):
    def open(self, path: bytes, pflags: int, attrs: asyncssh.SFTPAttrs) -> object:
        raise asyncssh.SFTPPermissionDenied("no writing here")


@asynccontextmanager
async def serving(kind: type[asyncssh.SFTPServer], folder: Path) -> AsyncIterator[Server]:
    host_key = asyncssh.generate_private_key("ssh-ed25519")
    user_key = asyncssh.generate_private_key("ssh-ed25519")
    listener = await asyncssh.create_server(
        asyncssh.SSHServer,
        "127.0.0.1",
        0,
        server_host_keys=[host_key],
        authorized_client_keys=asyncssh.import_authorized_keys(user_key.export_public_key().decode()),
        sftp_factory=lambda channel: kind(channel, chroot=os.fsencode(folder)),
        config=None,
    )
    public, private = host_key.export_public_key().decode(), user_key.export_private_key().decode()
    try:
        yield Server("asyncssh", listener.get_port(), "u", private, public, folder, "/")
    finally:
        listener.close()
        await listener.wait_closed()


async def test_a_drop_box_that_shows_nothing_takes_files_also_a_second_time(tmp_path: Path) -> None:
    async with serving(DropBox, tmp_path) as server:
        for _ in range(2):
            async with opened(server, manifest=True) as sink:
                assert isinstance((await sink.write(batch_of()))[0], Ok)
        assert sorted(server.files()) == ["R.csv", "R.csv.manifest.json"]


async def test_a_refused_permission_stops_the_pipeline(tmp_path: Path) -> None:
    async with serving(ReadOnly, tmp_path) as server, opened(server) as sink:
        with pytest.raises(FatalError, match="no writing here") as raised:
            await sink.write(batch_of())
        assert raised.value.code == "sftp.refused"


async def test_a_server_that_is_not_there_is_tried_again(mock: Server) -> None:
    assert mock.mock is not None
    async with opened(mock) as sink:
        await mock.mock.stop()
        (verdict, *_) = await sink.write(batch_of())
        assert isinstance(verdict, Retry)
    with pytest.raises(RetriableError, match="no connection"):
        async with opened(mock):
            pass


async def test_a_server_that_is_silent_is_given_up_in_time() -> None:
    callers: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _reader, writer: callers.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    key = asyncssh.generate_private_key("ssh-ed25519")
    connection = SftpConnection.model_validate(
        {
            "host": "127.0.0.1",
            "port": port,
            "user": "u",
            "password": Secret.of("some-password"),
            "host_keys": [key.get_fingerprint()],
            "allow_private": ["127.0.0.0/8"],
            "connect_timeout": 0.2,
        }
    )
    sink = SftpSink(SftpSinkSettings(), connection)
    with pytest.raises(RetriableError, match="did not answer"):
        await sink.open(PluginContext("ns", "out", Path(), get_logger("test")))
    await sink.close()
    assert callers, "nobody called"
    for writer in callers:
        writer.close()
    silent.close()
    await silent.wait_closed()


async def test_loopback_and_private_addresses_are_refused_unless_named(mock: Server) -> None:
    with pytest.raises(ConfigurationError, match="loopback"):
        async with opened(mock, mock.connection(allow_private=[])):
            pass


async def test_an_unreadable_private_key_is_told_without_showing_it(mock: Server) -> None:
    key = asyncssh.import_private_key(mock.private_key)
    locked = key.export_private_key("pkcs8-pem", passphrase="open sesame").decode()
    for content, passphrase in (("no key at all", None), (locked, None), (locked, "wrong phrase")):
        secret = Secret.of(passphrase) if passphrase else None
        with pytest.raises(ConfigurationError, match="private key can't be read") as raised:
            async with opened(mock, mock.connection(private_key=Secret.of(content), passphrase=secret)):
                pass
        assert "no key at all" not in str(raised.value)
        assert raised.value.__cause__ is None
    async with opened(
        mock, mock.connection(private_key=Secret.of(locked), passphrase=Secret.of("open sesame"))
    ) as sink:
        assert isinstance((await sink.write(batch_of()))[0], Ok)


# --- the mock's failures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["unavailable", "throttled", "no_space", "disconnect"])
async def test_the_mock_fails_as_told_and_then_takes_the_file(mock: Server, kind: str) -> None:
    assert mock.mock is not None
    async with opened(mock) as sink:
        mock.mock.fail(2, kind)
        first, second, third = [await sink.write(batch_of(attempt=attempt)) for attempt in (1, 2, 3)]
    assert isinstance(first[0], Retry)
    assert isinstance(second[0], Retry)
    assert isinstance(third[0], Ok)
    assert list(mock.files()) == ["R.csv"]


async def test_the_mock_refuses_credentials_when_told(mock: Server) -> None:
    assert mock.mock is not None
    async with opened(mock) as sink:
        mock.mock.fail(1, "denied")
        assert isinstance((await sink.write(batch_of()))[0], Retry)
        with pytest.raises(FatalError, match="refuses the user"):
            await sink.write(batch_of())


async def test_the_mock_shows_what_arrived_and_takes_its_password(mock: Server) -> None:
    assert mock.mock is not None
    password = Secret.of(mock.mock.environment["SFTP_PASSWORD"])
    async with opened(mock, mock.connection(private_key=None, password=password)) as sink:
        await sink.write(batch_of())
    (shown,) = mock.mock.contents()
    content = mock.files()["R.csv"]
    assert shown["path"] == "R.csv"
    assert shown["size"] == len(content)
    assert shown["sha256"] == hashlib.sha256(content).hexdigest()
    assert shown["head"].startswith("n,text")


async def test_openssh_s_own_client_reads_from_the_mock(mock: Server, tmp_path: Path) -> None:
    if shutil.which("sftp") is None:
        pytest.skip("OpenSSH's sftp client is missing")
    (tmp_path / "key").write_text(mock.private_key)
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "known").write_text(f"[127.0.0.1]:{mock.port} {mock.host_key}\n")
    async with opened(mock) as sink:
        await sink.write(batch_of())
    options = ["IdentitiesOnly=yes", f"IdentityFile={tmp_path / 'key'}", f"UserKnownHostsFile={tmp_path / 'known'}"]
    arguments = [part for option in (*options, "StrictHostKeyChecking=yes", "BatchMode=yes") for part in ("-o", option)]
    process = await asyncio.create_subprocess_exec(
        "sftp", "-F", "none", "-P", str(mock.port), *arguments, f"{mock.user}@127.0.0.1:/R.csv", tmp_path / "got"
    )
    assert await asyncio.wait_for(process.wait(), 30) == 0
    assert (tmp_path / "got").read_bytes() == mock.files()["R.csv"]


# --- settings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"host_keys": []}, "at least 1"),
        ({"host_keys": ["SHA256:abc"]}, "is cut"),
        ({"host_keys": ["anything"]}, "fingerprint SHA256"),
        ({"host_keys": ["ssh-ed25519 not/base64!"]}, "no public key line"),
        ({"password": None}, "`password` or `private_key`"),
        ({"password": "in-the-manifest"}, "written as a reference"),
        ({"allow_private": ["http://x"]}, "a host name, an address or a CIDR"),
    ],
)
def test_a_connection_that_can_not_be_safe_is_refused(change: dict[str, Any], complaint: str) -> None:
    key = asyncssh.generate_private_key("ssh-ed25519").get_fingerprint()
    whole = {"host": "h", "user": "u", "password": "${env:SFTP_PASSWORD}", "host_keys": [key]}
    SftpConnection.model_validate(whole)
    with pytest.raises(ValidationError, match=complaint):
        SftpConnection.model_validate(whole | change)
