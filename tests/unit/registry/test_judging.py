"""Who waits for whom while a schema is judged: nobody but its client, and not even the judge when that has gone away."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import AsyncIterator
from concurrent.futures import Future
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import pytest
from aiohttp import web

from trunkline.registry import judges, rules
from trunkline.registry.candidate import Candidate, Judgement, UnjudgedError
from trunkline.registry.changes import UNKNOWN
from trunkline.registry.service import serve_registry
from trunkline.registry.state import State
from trunkline.registry.steps import MAX_STEPS, AbandonedError, Steps
from trunkline.registry.store import MemoryStore

from .sources import record

T = TypeVar("T")
WAIT = 20.0


class Held:
    """Holds up those judgements whose schema has a certain word, until it is let go or its client has gone away."""

    def __init__(self) -> None:
        self.entered, self.let_go, self.ended = threading.Event(), threading.Event(), threading.Event()
        self.held = 0

    def hold(self, steps: Steps) -> None:
        self.held += 1
        self.entered.set()
        try:
            while not self.let_go.wait(0.005):
                steps.take(0)
        except AbandonedError:
            self.ended.set()
            raise


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Held:
    made = Held()
    judged = Judgement.candidate

    def candidate(self: Judgement, state: State, *, known: bool = False) -> Candidate:
        if not known and "hold" in str(self._text):
            made.hold(self.steps)
        return judged(self, state, known=known)

    monkeypatch.setattr(Judgement, "candidate", candidate)
    return made


class Watched:
    """Tells when a client's request comes to be judged, and when the registry finds that the client has gone away."""

    def __init__(self, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked, self.gone = asyncio.Event(), asyncio.Event()
        judge = judges.Judges.judge

        async def watched(self_: judges.Judges, request: web.Request, *args: Any) -> Any:
            if request.path != path:
                return await judge(self_, request, *args)
            self.asked.set()
            try:
                return await judge(self_, request, *args)
            except AbandonedError:
                self.gone.set()
                raise

        monkeypatch.setattr(judges.Judges, "judge", watched)


@pytest.fixture
async def url() -> AsyncIterator[str]:
    listener = await serve_registry(MemoryStore())
    yield listener.url
    await listener.stop()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as made:
        yield made


async def register(session: aiohttp.ClientSession, url: str, subject: str, schema: Any) -> tuple[int, Any]:
    body = io.BytesIO(json.dumps({"schema": json.dumps(schema, separators=(",", ":"))}).encode())
    headers = {"Content-Type": "application/json"}
    async with session.post(f"{url}/subjects/{subject}/versions", data=body, headers=headers) as answer:
        return answer.status, json.loads(await answer.read())


HELD = {**record(), "doc": "hold"}


async def test_others_write_and_read_while_a_schema_is_judged(
    held: Held, url: str, session: aiohttp.ClientSession
) -> None:
    slow = asyncio.create_task(register(session, url, "slow", HELD))
    assert await asyncio.to_thread(held.entered.wait, WAIT)
    for number in range(3):
        assert (await register(session, url, "other", {**record(), "doc": str(number)}))[0] == 200
    async with session.get(f"{url}/subjects") as answer:
        assert await answer.json(content_type=None) == ["other"]
    assert not slow.done()
    held.let_go.set()
    assert await slow == (200, {"id": 4, "version": 1})


@pytest.mark.parametrize(
    ("path", "queued"),
    [("/subjects/s/versions", False), ("/subjects/s", False), ("/compatibility/subjects/s/versions", True)],
)
async def test_judging_ends_when_its_client_goes_away(
    held: Held, url: str, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch, path: str, queued: bool
) -> None:
    place, watched = urlsplit(url), Watched(path, monkeypatch)
    body = json.dumps({"schema": json.dumps(HELD)}).encode()
    others = [asyncio.create_task(register(session, url, "o", HELD)) for _ in range(judges.AT_ONCE if queued else 0)]
    while held.held < len(others):
        await asyncio.to_thread(held.entered.wait, WAIT)
        await asyncio.sleep(0)
    _, writer = await asyncio.open_connection(place.hostname, place.port)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    # A client that goes away before its request was read is no request: it has to be judged, or wait for that.
    await asyncio.wait_for(watched.asked.wait(), WAIT)
    if not queued:
        assert await asyncio.to_thread(held.entered.wait, WAIT)
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(watched.gone.wait(), WAIT)
    if not queued:
        assert await asyncio.to_thread(held.ended.wait, WAIT), "it went on for nobody"
    held.let_go.set()
    assert [status for status, _ in await asyncio.gather(*others)] == [200] * len(others)
    assert held.held == (len(others) or 1), "what nobody waits for was begun"


async def test_who_ends_the_registry_ends_what_is_judged(held: Held, session: aiohttp.ClientSession) -> None:
    listener = await serve_registry(MemoryStore())
    slow = asyncio.create_task(register(session, listener.url, "slow", HELD))
    assert await asyncio.to_thread(held.entered.wait, WAIT)
    await listener.stop()
    assert await asyncio.to_thread(held.ended.wait, WAIT)
    assert (await slow)[0] == 503


async def test_more_than_a_number_of_schemas_do_not_wait(
    held: Held, url: str, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judges, "MAX_WAITING", 1)
    slow = asyncio.create_task(register(session, url, "slow", HELD))
    assert await asyncio.to_thread(held.entered.wait, WAIT)
    status, answer = await register(session, url, "other", record())
    assert (status, answer["error_code"]) == (503, 503)
    held.let_go.set()
    assert (await slow)[0] == 200
    assert (await register(session, url, "other", record()))[0] == 200


async def test_a_schema_that_costs_too_much_is_refused_with_confluents_error(
    url: str, session: aiohttp.ClientSession
) -> None:
    def one(space: str) -> list[Any]:
        return [record((f"f{index}", "int"), name=f"{space}{index}.R") for index in range(2500)]

    assert (await register(session, url, "s", one("a")))[0] == 200
    status, answer = await register(session, url, "s", one("b"))
    assert (status, answer["error_code"]) == (422, 42201)
    assert answer["message"].startswith(f"Invalid schema: judging the schema takes more than {MAX_STEPS} steps")
    body = {"schema": json.dumps(one("b"))}
    async with session.post(f"{url}/compatibility/subjects/s/versions", json=body) as refused:
        assert refused.status == 422
    async with session.get(f"{url}/subjects/s/versions") as kept:
        assert await kept.json(content_type=None) == [1]


async def test_the_union_that_blocked_all_others_is_registered(url: str, session: aiohttp.ClientSession) -> None:
    def union(kind: str) -> list[Any]:
        return [record(("a", kind), ("b", ["null", "string"], None), name=f"ns.Rec{index}") for index in range(1000)]

    assert await register(session, url, "s", union("int")) == (200, {"id": 1, "version": 1})
    assert await register(session, url, "s", union("int")) == (200, {"id": 1, "version": 1})
    assert await register(session, url, "s", union("long")) == (200, {"id": 2, "version": 2})
    status, answer = await register(session, url, "s", union("string"))
    assert (status, answer["error_code"]) == (409, 409)
    assert len(answer["message"]) < 6000


def registration(subject: str, schema: Any) -> rules.Registration:
    return rules.Registration(subject, Judgement({"schema": json.dumps(schema)}))


def test_a_decision_judges_nothing_itself() -> None:
    work, state = registration("s", record(("x", "int"))), State()
    with pytest.raises(UnjudgedError):
        work.decide(state)
    work.judge(state)
    assert work.decide(state)[1].id == 1


def test_what_came_up_since_it_was_judged_is_judged_before_it_is_decided() -> None:
    work, state = registration("s", record(("x", "int"))), State()
    work.judge(state)
    for each in rules.register("s", json.dumps(record(("x", "string"))))(state)[0]:
        state.apply(*each.encoded())
    with pytest.raises(UnjudgedError):
        work.decide(state)
    work.judge(state)
    with pytest.raises(rules.RegistryError, match="incompatible"):
        work.decide(state)


class Overtaken(MemoryStore):
    """Somebody else registers a schema right before each of the first writes."""

    def __init__(self, schemas: list[Any]) -> None:
        super().__init__()
        self._schemas = schemas

    async def write(self, decide: rules.Decide[T], by: str = UNKNOWN) -> T:
        if self._schemas:
            await super().write(rules.register("s", json.dumps(self._schemas.pop(0))))
        return await super().write(decide, by)


async def test_who_is_overtaken_follows_the_other_or_is_told_that_it_may_not(session: aiohttp.ClientSession) -> None:
    for others, expected in (
        ([record(("x", "int")), {**record(("x", "int")), "doc": "2"}], (200, 3)),
        ([record(("x", "int")), record(("x", "int"), ("y", "int", 0))], (200, 3)),
        ([record(("x", "string"))], (409, None)),
    ):
        listener = await serve_registry(Overtaken(others))
        status, answer = await register(session, listener.url, "s", {**record(("x", "int")), "doc": "mine"})
        assert (status, answer.get("version")) == expected
        await listener.stop()


def test_a_write_that_cannot_be_encoded_fails_alone() -> None:
    from trunkline.registry.kafka_store import _Asked, _decided

    def broken(_state: State) -> Any:
        return [rules.level_record("\ud800", "FULL")], None

    state = State()
    asked = [_Asked(decide, "Ann", Future()) for decide in (broken, rules.register("s", '"int"'))]
    decided = _decided(asked, state)
    assert isinstance(decided.answers[0], UnicodeEncodeError)
    assert [record.key["subject"] for record in decided.records] == ["s"] == list(state.subjects)
    assert [(change.by, change.subject) for change in decided.changes] == [("Ann", "s")]
