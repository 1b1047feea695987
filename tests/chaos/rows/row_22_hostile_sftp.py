"""Row 22: a server, a folder and a line that mean harm to the SFTP sink."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncssh
import structlog

from sinks.sftp.settings import SftpSinkSettings
from sinks.sftp.sink import SftpSink
from tests.chaos.campaign import Run, row
from tests.integration.sftp_servers import SSHD, CutLine, Server, mocked, openssh
from tests.unit.sinks.hostile_texts import NAMES
from trunkline.core.contracts import Batch, PluginContext
from trunkline.core.errors import FatalError, RetriableError
from trunkline.core.event import Event
from trunkline.core.verdicts import Ok, Retry

SCHEMA = SimpleNamespace(
    id=1,
    name="Row",
    json={
        "type": "record",
        "name": "Row",
        "fields": [{"name": "n", "type": "long"}, {"name": "text", "type": "string"}],
    },
)
NAMED, LINKED, STRANGE, CUT = "hostile names", "planted links", "unknown host keys", "cut uploads"


@row(
    22,
    "a hostile SFTP server, folder and line",
    load="batches of {rows} rows",
    fault="{names} hostile names, planted links, unknown host keys, {cuts} cut uploads",
    full={"rows": 400, "names": 40, "cuts": 50},
    short={"rows": 60, "names": 40, "cuts": 4},
    minutes=4,
)
async def hostile_sftp(run: Run) -> None:
    """Nothing is written outside the folder, no unknown key is accepted, and no final file is ever a part of one."""
    kinds = ["openssh", "mock"] if SSHD.exists() else ["mock"]
    verdicts: Counter[str] = Counter()
    for number, kind in enumerate(kinds):
        root = run.folder / kind
        root.mkdir(parents=True)
        async with openssh(root) if kind == "openssh" else mocked(root) as server:
            await _names(run, server, kind)
            await _links(run, server, kind, root)
            await _keys(run, server, kind)
            share = run["cuts"] // len(kinds) + (number < run["cuts"] % len(kinds))
            verdicts += await _cuts(run, server, kind, share)
    for what, times in ((NAMED, len(NAMES)), (LINKED, 3), (STRANGE, 4)):
        run.must_fire(what, times * len(kinds))
    run.claim(len(NAMES) >= run["names"], f"there are {len(NAMES)} hostile names of {run['names']}")
    run.must_fire(CUT, run["cuts"] * 9 // 10)  # what a session takes differs by a packet now and then
    run.note("servers", " and ".join(kinds))
    run.note("first answers to cut uploads", ", ".join(f"{name} {times}" for name, times in sorted(verdicts.items())))


async def _names(run: Run, server: Server, kind: str) -> None:
    """A range that is named so is never asked of the server."""
    before = _tree(server.folder.parent)
    async with _opened(server, name="{range}") as sink:
        for name in NAMES:
            try:
                await sink.write(_batch(3, name))
                run.claim(False, f"{kind}: the name {name!r} was taken")
            except FatalError:
                run.fires({NAMED: 1})
    run.claim(_tree(server.folder.parent) == before, f"{kind}: a hostile name wrote something")


async def _links(run: Run, server: Server, kind: str, root: Path) -> None:
    """Links to a file outside, to nowhere, and one that bears the manifest's name: replaced, never written through."""
    secret, absent = root / "secret", root / "absent"
    secret.write_text("untouched", encoding="utf-8")
    batch = _batch(run["rows"], "L")
    for name, target in (("L.csv", secret), ("L.csv", absent), ("L.csv.manifest.json", secret)):
        _empty(server)
        (server.folder / name).symlink_to(target)
        async with _opened(server, manifest=True) as sink:
            verdicts = await sink.write(batch)
        run.claim(all(isinstance(one, Ok) for one in verdicts), f"{kind}: behind a link at {name}: {verdicts[:1]}")
        run.claim(not (server.folder / name).is_symlink(), f"{kind}: the link at {name} is still there")
        run.claim(secret.read_text(encoding="utf-8") == "untouched", f"{kind}: written through a link at {name}")
        run.claim(not absent.exists(), f"{kind}: made a file through a link at {name}")
        run.fires({LINKED: 1})
    _empty(server)
    secret.unlink()


async def _keys(run: Run, server: Server, kind: str) -> None:
    """Pins of other keys, and a line that leads to another server once the first one was accepted."""
    stranger = asyncssh.generate_private_key("ssh-ed25519")
    other = asyncssh.generate_private_key("ecdsa-sha2-nistp256")
    pins = [stranger.export_public_key().decode(), stranger.get_fingerprint(), other.export_public_key().decode()]
    for pin in pins:
        await _refused(run, server, server.connection(host_keys=[pin]), f"{kind}: the pin {pin[:30]}")
    async with mocked(server.folder.parent / "stranger") as another, CutLine(server.port) as line:
        connection = server.connection(port=line.port)
        async with _opened(server, connection) as sink:
            verdicts = await sink.write(_batch(3, "K"))
            run.claim(isinstance(verdicts[0], Ok), f"{kind}: the right key was refused: {verdicts[0]}")
        line.lead_to(another.port)
        await _refused(run, server, connection, f"{kind}: another server on the same address")
        run.claim(not another.files(), f"{kind}: the other server got a file")
    _empty(server)


async def _refused(run: Run, server: Server, connection: Any, what: str) -> None:
    before = server.files()
    try:
        async with _opened(server, connection) as sink:
            await sink.write(_batch(3, "K2"))
        run.claim(False, f"{what} was accepted")
    except FatalError as error:
        run.claim(error.code == "sftp.host_key", f"{what} ended with {error.code}")
        run.fires({STRANGE: 1})
    run.claim(server.files() == before, f"{what} wrote something")


async def _cuts(run: Run, server: Server, kind: str, count: int) -> Counter[str]:
    """The line breaks after any number of bytes, in either direction; then the same range is written again."""
    batch, first = _batch(run["rows"], "R", width=200), Counter[str]()
    async with CutLine(server.port) as line, _opened(server, server.connection(port=line.port), manifest=True) as sink:
        before = dict(line.passed)
        await sink.write(batch)
        after = dict(line.passed)
    whole = server.files()["R.csv"]
    for number in range(count):
        _empty(server)
        way = ("up", "down")[number % 2]
        # Half of the cuts fall into the small packets of fsync, rename and manifest at the end.
        begin = before[way] if number % 4 < 2 else max(before[way], after[way] - 2_000)
        limit = run.chance.randrange(begin, after[way] - 40)
        async with CutLine(server.port, way, limit) as line:
            try:
                async with _opened(server, server.connection(port=line.port), manifest=True) as sink:
                    verdict = (await sink.write(batch))[0]
                first[type(verdict).__name__] += 1
                run.claim(isinstance(verdict, Ok | Retry), f"{kind}: cut after {limit} bytes {way}: {verdict}")
            except RetriableError:
                first["not opened"] += 1
            run.fires({CUT: int(line.cut)})
        _judge(run, server, whole, f"{kind}: cut after {limit} bytes {way}")
        async with _opened(server, manifest=True) as sink:
            again = await sink.write(batch)
        run.claim(all(isinstance(one, Ok) for one in again), f"{kind}: written again after {limit} bytes: {again[:1]}")
        found = server.files()
        run.claim(sorted(found) == ["R.csv", "R.csv.manifest.json"], f"{kind}: left behind: {sorted(found)}")
        run.claim(found.get("R.csv") == whole, f"{kind}: the file written again is another one")
    return first


def _judge(run: Run, server: Server, whole: bytes, what: str) -> None:
    """A final file is whole or not there, and a manifest only beside it."""
    files = server.files()
    run.claim(files.get("R.csv", whole) == whole, f"{what}: a part of the file under its final name")
    manifest = files.get("R.csv.manifest.json")
    if manifest is not None:
        digest = hashlib.sha256(files.get("R.csv", b"")).hexdigest()
        run.claim(digest.encode() in manifest, f"{what}: a manifest of what is not there")


@asynccontextmanager
async def _opened(server: Server, connection: Any = None, **config: Any) -> AsyncIterator[SftpSink]:
    settings = SftpSinkSettings.model_validate({"folder": server.path, **config})
    sink = SftpSink(settings, connection or server.connection())
    try:
        await sink.open(PluginContext("chaos", "out", server.folder, structlog.get_logger()))
        yield sink
    finally:
        await sink.close()


def _batch(count: int, name: str, width: int = 10) -> Batch:
    values = [{"n": n, "text": f"{n:x}".rjust(width, "ü")} for n in range(count)]
    return Batch([Event(value, schema=SCHEMA, topic="t", offset=n) for n, value in enumerate(values)], name, 1)


def _empty(server: Server) -> None:
    for path in server.folder.iterdir():
        path.unlink()


def _tree(folder: Path) -> list[tuple[str, int]]:
    """Every file below a folder and its size."""
    return sorted(
        (os.fsdecode(path.relative_to(folder)), path.lstat().st_size) for path in folder.rglob("*") if not path.is_dir()
    )
