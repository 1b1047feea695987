"""Row 18: forged and mutated signatures, repeats at two workers, timestamps out of their window, secrets that change."""

from __future__ import annotations

import asyncio
import itertools
import time
import urllib.parse
from collections import Counter
from dataclasses import replace

from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.doors import PROVIDERS, Doors, Provider, body_of
from tests.chaos.history import Acknowledged, Effect, History, Sent
from tests.namespaces import new_namespace
from tests.unit.connectors.webhook_requests import GENERIC, NOW, mutated, plain_headers, source
from trunkline.bus.names import Names
from trunkline.core.contracts import Request

OLD, NEW = "the secret of last year", "the secret of this year"
ROTATION = {"before": ("CHAOS_OLD",), "during": ("CHAOS_OLD", "CHAOS_NEW"), "after": ("CHAOS_NEW",)}
KINDS = {"standard": "standard_webhooks"}
FORGED, REPEATED, LATE = "forged or mutated", "repeats", "beyond the window's edge"
TAKEN = {200, 202}
AT_ONCE = 10
FAR = 400.0
"""Seconds: far enough from the window's edge for a request that is on its way for a while. The edge itself is tried on a fixed clock."""


async def knock(url: str, door: str, request: Request) -> int:
    """The status that a request gets. Sent as bytes, because no HTTP client would send what a forger may."""
    target = urllib.parse.urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    try:
        head = [f"POST /hooks/{door} HTTP/1.1", "Host: chaos", "Connection: close"]
        head += [f"Content-Length: {len(request.body)}"]
        head += [f"{name}: {value}" for name, value in request.headers.items()]
        writer.write("\r\n".join([*head, "", ""]).encode("utf-8", "surrogatepass") + request.body)
        line = await asyncio.wait_for(reader.readline(), 60)
        return int(line.split()[1]) if line.startswith(b"HTTP/1.") else 0
    except ConnectionError:
        return 0
    finally:
        writer.close()


class Knocking:
    """What was sent to which worker, and what it was answered."""

    def __init__(self, urls: list[str]) -> None:
        self.urls = urls
        self.history = History()
        self.answers: Counter[int] = Counter()

    async def good(self, door: str, identity: str, request: Request, worker: int = 0) -> int:
        """A request that must be taken."""
        self.history.add(Sent(identity, door, key=identity, at=time.time()))
        status = await knock(self.urls[worker], door, request)
        if status in TAKEN:
            self.history.add(Acknowledged(identity, door, time.time(), by=f"worker {worker}"))
        return status

    async def bad(self, door: str, request: Request, worker: int) -> None:
        """A request that must not be taken: it was never sent as far as the history knows, so its event would be a phantom."""
        self.answers[await knock(self.urls[worker], door, request)] += 1


@row(
    18,
    "forged, repeated and late requests",
    load="webhooks of five kinds of senders at two workers",
    fault="{forged} forged or mutated signatures, {repeats} repeats, ±301 s where a timestamp is signed, secrets that change",
    full={"forged": 500, "repeats": 100},
    short={"forged": 30, "repeats": 10},
    minutes=4,
)
async def signatures(run: Run) -> None:
    """No forged request is taken; a repeat, at whichever worker, gets 2xx and makes no event."""
    kafka = await run.kafka()
    secrets = {"CHAOS_OLD": OLD, "CHAOS_NEW": NEW}
    secrets |= {f"CHAOS_{name.upper()}": one.secret for name, one in PROVIDERS.items()}
    doors: dict[str, tuple[Provider, tuple[str, ...]]] = {
        name: (one, (f"CHAOS_{name.upper()}",)) for name, one in PROVIDERS.items()
    }
    doors |= {name: (PROVIDERS["github"], variables) for name, variables in ROTATION.items()}
    doors["marks"] = doors["once"] = doors["github"]
    names = Names(new_namespace("chaos"))
    scene = Doors(kafka, names, run.folder, doors, secrets, workers=2)
    with scene.fleet as workers:
        knocking = Knocking(await scene.until_open())
        await _forged(run, knocking)
        await _repeated(run, knocking)
        await _late(run, knocking)
        await _rotated(run, knocking)
        await _at_once(run, knocking)
        run.claim(len(workers.living) == 2, "a worker ended")
        judged = [name for name in doors if name not in {"marks", "once"}]
        knocking.history.extend(
            itertools.chain.from_iterable([await asyncio.to_thread(_published, scene, door) for door in judged])
        )
        twice = Counter(one.id for one in await asyncio.to_thread(_published, scene, "once"))
    run.note("taken by both of two workers at once", f"{sum(n > 1 for n in twice.values())} of {AT_ONCE}")
    run.judge(knocking.history, [Promise(f"{door}-topic", (door,)) for door in judged])
    taken = {status: times for status, times in knocking.answers.items() if 200 <= status < 300 or status >= 500}
    run.claim(not taken, f"bad requests were answered {taken}")
    run.note("answers to bad requests", ", ".join(f"{status}: {n}" for status, n in sorted(knocking.answers.items())))


def _published(scene: Doors, door: str) -> list[Effect]:
    return list(scene.published(door))


async def _forged(run: Run, knocking: Knocking) -> None:
    """Signed with another secret, or signed well and then changed."""
    kinds = list(PROVIDERS.values())
    sent = 0
    while sent < run["forged"]:
        provider, identity = kinds[sent % len(kinds)], f"forged-{sent}"
        good = provider.request(identity)
        good = replace(good, headers=plain_headers(good))
        if run.chance.random() < 0.3:
            other = provider.secret[:-4] + "AAAA" if provider.name == "standard" else f"{provider.secret}!"
            request = provider.request(identity, secret=other)
        else:
            request = mutated(run.chance, good)
        if request == good:
            continue
        await knocking.bad(provider.name, request, run.chance.randrange(2))
        sent += 1
    run.fires({FORGED: sent})
    run.must_fire(FORGED, run["forged"])


async def _repeated(run: Run, knocking: Knocking) -> None:
    """Each again at the worker that took it, and at the other one after that has read what the first one took."""
    kinds = list(PROVIDERS.values())
    samples = [(kinds[number % len(kinds)], f"repeated-{number}") for number in range(run["repeats"] // 2)]
    requests = [(provider.name, identity, provider.request(identity)) for provider, identity in samples]
    first = [await knocking.good(*one) for one in requests]
    run.claim(set(first) == {202}, f"good requests were answered {Counter(first)}")
    again = [await knocking.good(*one) for one in requests]
    run.note("marks before the other worker knew", await _caught_up(knocking))
    other = [await knocking.good(*one, worker=1) for one in requests]
    run.claim({*again, *other} == {200}, f"repeats were answered {Counter(again + other)}")
    run.fires({REPEATED: len(again) + len(other)})
    run.must_fire(REPEATED, run["repeats"])


async def _caught_up(knocking: Knocking) -> int:
    """Waits until the second worker knows what the first one took, and says how many marks it took for new before.

    A delivery that reaches two workers within that time is taken by both.
    """
    for number in range(200):
        request = PROVIDERS["github"].request(f"mark-{number}")
        await knock(knocking.urls[0], "marks", request)
        if await knock(knocking.urls[1], "marks", request) == 200:
            return number
        await asyncio.sleep(0.05)
    raise TimeoutError("the second worker does not learn what the first one took")


async def _late(run: Run, knocking: Knocking) -> None:
    """Beyond the window at the workers; at its edge on a fixed clock, because a request is on its way for a while."""
    refused = 0
    for provider in PROVIDERS.values():
        if not provider.timed:
            continue
        for age in (FAR, -FAR):
            await knocking.bad(provider.name, provider.request(f"late-{age}", age=age), worker=run.chance.randrange(2))
        verify = GENERIC if provider.name == "generic" else {"provider": KINDS.get(provider.name, provider.name)}
        door = await source({**verify, "secrets": [provider.secret]})
        for age in (300, -300, 301, -301):
            answer = await door.receive(provider.sign(body_of("edge"), NOW - age, secret=provider.secret))
            run.claim((answer.status == 202) == (abs(age) <= 300), f"{provider.name}: {age} s got {answer.status}")
            refused += answer.status == 401
    run.fires({LATE: refused})
    run.must_fire(LATE, 8)


async def _rotated(run: Run, knocking: Knocking) -> None:
    """While a secret changes both are good; before and after only one."""
    for door, variables in ROTATION.items():
        for secret, variable in ((OLD, "CHAOS_OLD"), (NEW, "CHAOS_NEW")):
            identity, worker = f"{door}-{variable}", run.chance.randrange(2)
            request = PROVIDERS["github"].request(identity, secret=secret)
            if variable in variables:
                status = await knocking.good(door, identity, request, worker)
                run.claim(status == 202, f"{door} the change {variable} got {status}")
            else:
                await knocking.bad(door, request, worker)


async def _at_once(run: Run, knocking: Knocking) -> None:
    """The same delivery at two workers in the same moment: each must take it or know it."""
    for number in range(AT_ONCE):
        request = PROVIDERS["github"].request(f"once-{number}")
        answers = await asyncio.gather(*(knock(url, "once", request) for url in knocking.urls))
        run.claim(set(answers) <= TAKEN, f"a good request was answered {answers}")
