"""Row 19: bodies that are much more than they seem, and clients that never end, while others send what is good."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import struct
import time
import urllib.parse
import zlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.doors import PROVIDERS, Doors
from tests.chaos.history import Acknowledged, History, Sent
from tests.chaos.rows.row_18_signatures import knock
from tests.namespaces import new_namespace
from trunkline.bus.names import Names
from trunkline.core.contracts import Request

DOOR = "github"
MIB = 2**20
GIB = 2**30
ALLOWED_MIB = 64.0
REFUSED_SECONDS = 5.0
BOMB, SLOW, GOOD = "bombs", "slow clients", "good requests"
HUNG_UP = 0
"""What `knock` gives where a worker ends the connection without an answer."""
KINDS = ("gzip", "zstd", "deep JSON", "chunked")


@dataclass(frozen=True, slots=True)
class Bomb:
    """A signed request whose body is worth far more than its bytes. `chunks`: sent in pieces without an end before 2 GB."""

    kind: str
    body: bytes
    encoding: str | None = None
    chunks: int = 0


def bombs(kind: str, number: int) -> Bomb:
    """The bombs of a kind differ in how large they are and what they say of themselves."""
    size = (number + 1) * GIB // 8
    if kind == "gzip":
        return Bomb(kind, gzip_bomb(size), ("gzip", "x-gzip")[number % 2])
    if kind == "zstd":
        return Bomb(kind, zstd_bomb(size), "zstd")
    if kind == "deep JSON":
        levels = 65 << number
        opened, closed = ((b"[", b"]"), (b'{"a":', b"}"))[number % 2]
        levels = min(levels, MIB // len(opened))
        return Bomb(kind, opened * levels + b"1" + (closed * levels if number % 3 else b""))
    return Bomb(kind, b" " * 65_536, chunks=2 * GIB // 65_536)


def gzip_bomb(size: int) -> bytes:
    """A gzip body of a kilobyte for each MiB of spaces: one flushed block of deflate, again and again (RFC 1951 and 1952)."""
    block = zlib.compressobj(9, zlib.DEFLATED, -15)
    again = block.compress(b" " * MIB) + block.flush(zlib.Z_FULL_FLUSH)
    return b"\x1f\x8b\x08" + bytes(7) + again * (size // MIB) + b"\x03\x00" + struct.pack("<II", 0, size & 0xFFFF_FFFF)


def zstd_bomb(size: int) -> bytes:
    """A Zstandard frame of blocks that repeat one byte 128 KiB times (RFC 8878, section 3.1.1.2)."""
    count = size // (128 * 1024)
    head = b"\x28\xb5\x2f\xfd" + b"\x00" + b"\x38"  # no content size; a window of 128 KiB
    repeated = [(128 * 1024) << 3 | 1 << 1 | (number == count - 1) for number in range(count)]
    return head + b"".join(struct.pack("<I", header)[:3] + b" " for header in repeated)


@row(
    19,
    "bombs and slow clients",
    load="a good signed request every {pause} ms beside them",
    fault="{bombs} bombs (gzip, zstd, deep JSON, 2 GB in chunks), {slow} clients that send a byte at a time",
    full={"bombs": 40, "slow": 200, "pause": 20, "good": 500},
    short={"bombs": 8, "slow": 20, "pause": 20, "good": 30},
    minutes=4,
)
async def bombs_and_slow_clients(run: Run) -> None:
    """Bombs are refused in time, memory hardly grows, and whoever sends what is good is served."""
    kafka = await run.kafka()
    secret = {"CHAOS_SECRET": PROVIDERS[DOOR].secret}
    names = Names(new_namespace("chaos"))
    doors = Doors(kafka, names, run.folder, {DOOR: (PROVIDERS[DOOR], ("CHAOS_SECRET",))}, secret)
    history, answers = History(), Counter[str]()
    with doors.fleet as workers:
        (url,) = await doors.until_open()
        await _good(url, history, answers, 20, 0.0, "warm")
        before = doors.memory("VmRSS")
        await asyncio.to_thread(doors.forget_peak)
        async with slow_clients(url, run["slow"], run) as ended:
            good = asyncio.create_task(_good(url, history, answers, run["good"], run["pause"] / 1000, "good"))
            slowest, refused = await _throw(url, run["bombs"])
            await good
            run.note("slow clients ended by the worker", sum(task.done() for task in ended))
        grown = doors.memory() - before
        run.claim(len(workers.living) == 1 and not workers.crashed, "the worker ended")
        history.extend(await asyncio.to_thread(lambda: list(doors.published(DOOR))))
    run.judge(history, [Promise(f"{DOOR}-topic", (DOOR,))])
    wrong = {answer: times for answer, times in answers.items() if answer != "202"}
    run.claim(not wrong, f"good requests were answered {wrong}")
    taken = {status: times for status, times in refused.items() if status not in {HUNG_UP, 400, 413, 415}}
    run.claim(not taken, f"bombs were answered {taken}")
    run.claim(grown <= ALLOWED_MIB, f"the worker's memory grew by {grown:.0f} MiB")
    if run.full:
        run.claim(slowest <= REFUSED_SECONDS, f"a bomb was refused after {slowest:.1f} s")
    run.fires({BOMB: refused.total(), GOOD: answers.total()})
    run.must_fire(BOMB, run["bombs"])
    run.must_fire(SLOW, run["slow"])
    run.note("refusals", ", ".join(f"{status}: {times}" for status, times in sorted(refused.items())))
    run.note("slowest refusal", f"{slowest:.1f} s")
    run.note("memory grew by", f"{grown:.0f} MiB")


async def _good(url: str, history: History, answers: Counter[str], count: int, pause: float, name: str) -> None:
    for number in range(count):
        identity = f"{name}-{number}"
        history.add(Sent(identity, DOOR, key=identity, at=time.time()))
        status = await knock(url, DOOR, PROVIDERS[DOOR].request(identity))
        answers[str(status)] += 1
        if status == 202:
            history.add(Acknowledged(identity, DOOR, time.time(), by="2xx"))
        await asyncio.sleep(pause)


async def _throw(url: str, count: int) -> tuple[float, Counter[int]]:
    """Four bombs at a time, one of each kind: the slowest refusal in seconds, and the answers."""
    slowest, refused = 0.0, Counter[int]()
    for number in range(count // len(KINDS)):
        found = await asyncio.gather(*(_thrown(url, bombs(kind, number)) for kind in KINDS))
        slowest = max(slowest, *(seconds for seconds, _ in found))
        refused.update(status for _, status in found)
    return slowest, refused


async def _thrown(url: str, bomb: Bomb) -> tuple[float, int]:
    begun = time.monotonic()
    request = signed(bomb.body)
    if bomb.encoding is not None:
        request = replace(request, headers={**request.headers, "content-encoding": bomb.encoding})
    status = await (_poured(url, request, bomb) if bomb.chunks else knock(url, DOOR, request))
    return time.monotonic() - begun, status


def signed(body: bytes) -> Request:
    """A body as a sender signs it who knows the secret: what is inside is looked at only then."""
    provider = PROVIDERS[DOOR]
    return provider.sign(body, secret=provider.secret)


async def _poured(url: str, request: Request, bomb: Bomb) -> int:
    """Chunk after chunk until there is an answer or the worker hangs up."""
    target = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    head = [f"POST /hooks/{DOOR} HTTP/1.1", "Host: chaos", "Transfer-Encoding: chunked"]
    head += [f"{name}: {value}" for name, value in request.headers.items()]
    writer.write("\r\n".join([*head, "", ""]).encode())
    answer = asyncio.create_task(reader.readline())
    with contextlib.suppress(ConnectionError):
        for _ in range(bomb.chunks):
            writer.write(b"%x\r\n%b\r\n" % (len(bomb.body), bomb.body))
            await writer.drain()
            if answer.done():
                break
    try:
        line = await asyncio.wait_for(answer, 60)
        return int(line.split()[1]) if line.startswith(b"HTTP/1.") else HUNG_UP
    except ConnectionError:
        return HUNG_UP
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def slow_clients(url: str, count: int, run: Run) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Half of them send their headers a byte at a time, the others their bodies."""
    tasks = [asyncio.create_task(_dribble(url, number % 2 == 0, run)) for number in range(count)]
    try:
        while run.fired[SLOW] < count:
            await asyncio.sleep(0.02)
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _dribble(url: str, in_headers: bool, run: Run) -> None:
    target = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    noise = base64.b32encode(run.seed.to_bytes(8, "big")) * 1000
    head = f"POST /hooks/{DOOR} HTTP/1.1\r\nHost: chaos\r\n".encode()
    head += b"X-Slow: " if in_headers else b"Content-Length: 100000\r\n\r\n"
    ended = asyncio.create_task(reader.read())
    try:
        writer.write(head)
        for place in range(len(noise)):
            writer.write(noise[place : place + 1])
            await writer.drain()
            if place == 0:
                run.fires({SLOW: 1})
            await asyncio.wait({ended}, timeout=0.5)
            if ended.done():
                return
    except ConnectionError:
        return
    finally:
        ended.cancel()
        writer.close()
