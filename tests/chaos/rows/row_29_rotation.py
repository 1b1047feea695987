"""Row 29: credentials, certificates and secrets are rotated and revoked while their pipelines are under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from confluent_kafka.admin import AclOperation

from tests.certificates import Issued, issue
from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.direct import ID, Door, Record, event_encoder
from tests.chaos.history import Attempt, Effect, History
from tests.chaos.scene import EVENT, HELD_AT_MOST
from tests.integration.bus_harness import Asked, Bus, Endpoint, bus, http_connection, http_sink, topic_manifest
from tests.rights import Rights
from trunkline.bus.embedded.properties import REAUTHENTICATION
from trunkline.bus.kafka import KafkaSettings, headers_of
from trunkline.bus.states import State
from trunkline.core.secretpolicy import FOLDERS

FILED, SET, SECURED, STEADY, COPY = "filed", "set", "secured", "steady", "copy"
"""Sinks whose token is in a file, whose token is a variable's, that call over TLS, that need nothing; and a stream."""
SINKS = (FILED, SET, SECURED, STEADY)
USER, PASSWORD = "worker", "the password of the fault campaign"
VARIABLE = "CHAOS_ROTATED_TOKEN"
SOON = 10.0
"""Within so many seconds a cause is told, and is over after it was mended: judged at the full figures only."""
AT_ONCE = 32
"""So many calls of a sink are under way at the most."""
TRY_SECONDS = 4.0
KEYS = 20
TICK = 0.05


class Tokens:
    """An endpoint that takes the tokens that are good now, and remembers each call that it took, and those that it did not."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.server = Endpoint()
        self.tls = Endpoint()
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.good: dict[str, set[str]] = {FILED: set(), SET: set()}
        self.used: dict[str, str] = {}
        """The token that each sink came with last."""
        self.refused = 0
        self.history = History()
        for name in SINKS:
            endpoint = self.tls if name == SECURED else self.server
            endpoint.answers[f"/{name}"] = self._judged(name)

    def _judged(self, name: str) -> Callable[[Asked, int], int]:
        seen: set[str] = set()

        def answer(asked: Asked, _times: int) -> int:
            token = self.used[name] = asked.headers.get("Authorization", "").removeprefix("Bearer ")
            if name in self.good and token not in self.good[name]:
                self.refused += 1
                return 401
            event, now = asked.json["id"], time.time()
            self.history.add(Attempt(event, name, now))
            if event not in seen:
                seen.add(event)
                self.history.add(Effect(event, name, now))
            return 200

        return answer

    def show(self, issued: Issued) -> None:
        """Shows another certificate from the next connection on, and ends those that stand."""
        file = self._run.folder / f"{uuid.uuid4().hex}.pem"
        file.write_text(issued.key_pem + issued.pem)
        self.context.load_cert_chain(file)
        if self.tls.url:
            self.tls.hang_up()


@dataclass
class Play:
    """The bus under load, whose credentials change."""

    run: Run
    made: Bus
    tokens: Tokens
    rights: Rights | None
    door: Door
    token_file: str
    ca_file: str
    count: int = 0
    slowest: dict[str, float] = field(default_factory=dict)
    disturbed: dict[str, int] = field(default_factory=dict)
    """How many calls that were under way may be repeated, by pipeline."""

    @property
    def topic(self) -> str:
        """What all of them read."""
        return self.made.name("events")

    @property
    def copies(self) -> str:
        """What the stream writes."""
        return self.made.name("copies")

    # --- load ---

    async def write(self) -> None:
        """Writes events until it is cancelled."""
        encode = (await event_encoder(self.made.registry, self.topic)).encode
        sequences = [0] * KEYS
        while True:
            for _ in range(max(1, round(self.run["rate"] * TICK))):
                key = self.run.chance.randrange(KEYS)
                sequences[key] += 1
                name = f"e{self.count}"
                event = {"id": name, "key": f"k{key}", "sequence": sequences[key], "padding": ""}
                self.door.send(Record(name, encode(event), f"k{key}", sequences[key], f"k{key}".encode()))
                self.count += 1
            await asyncio.sleep(TICK)

    # --- what is told ---

    async def until(self, what: str, holds: Callable[[], object]) -> None:
        """Waits for it, and notes how long that took; at the full figures it must be soon."""
        begun = time.monotonic()
        await self.made.until(holds, what)
        took = time.monotonic() - begun
        kind = what.partition(":")[0]
        self.slowest[kind] = max(self.slowest.get(kind, 0.0), took)
        self.run.claim(not self.run.full or took <= SOON, f"{what} took {took:.1f} s")

    async def until_told(self, pipeline: str, code: str, state: State) -> None:
        """Waits until status says what is wrong: the cause, which may be known a moment earlier, and the state."""

        def told() -> bool:
            report = self.made.report(pipeline)
            return report.code == code and report.state is state

        await self.until(f"told: {pipeline} {code}, {state}", told)
        self.run.claim(self.made.report(pipeline).hint, f"no hint for {code}")

    async def until_over(self, *pipelines: str) -> None:
        """Waits until pipelines run without a cause, and do the work of an event that comes now."""

        mended = self.count

        def over() -> bool:
            reports = [self.made.report(one) for one in pipelines]
            return all(
                one.state is State.RUNNING and one.cause is None and one.counts.get("delivered", 0) > mended
                for one in reports
            )

        await self.until(f"over: {', '.join(pipelines)}", over)

    async def last_a_while(self) -> None:
        """The trouble lasts, for as long as chance says."""
        await asyncio.sleep(self.run.chance.uniform(0.5, 8.0 if self.run.full else 1.0))

    @contextlib.asynccontextmanager
    async def alone(self, *pipelines: str) -> AsyncIterator[None]:
        """Nothing that happens meanwhile may touch another pipeline, or restart the worker."""
        others = [one for one in (*SINKS, COPY) if one not in pipelines]
        worker = self.made.worker

        def standing() -> dict[str, tuple[float, int]]:
            return {one: (self.made.report(one).since, self.made.report(one).failures) for one in others}

        before = standing()
        for one in pipelines:
            self.disturbed[one] = self.disturbed.get(one, 0) + AT_ONCE
        yield
        self.run.claim(self.made.worker is worker, "the worker was restarted")
        self.run.claim(standing() == before, f"others than {pipelines} were touched: {before}, then {standing()}")

    def new_token(self) -> str:
        """A token that there was never before."""
        return f"token-{self.run.chance.getrandbits(64):016x}"

    # --- turns ---

    async def rotate_file(self) -> None:
        """Both tokens are good for a while: nobody notices."""
        async with self.alone(FILED):
            before, token = self.made.report(FILED).failures, self.new_token()
            self.tokens.good[FILED].add(token)
            self.write_file(self.token_file, token)
            await self.until(f"used: the new token of {FILED}", lambda: self.tokens.used.get(FILED) == token)
            await self.until_over(FILED)
            self.tokens.good[FILED] = {token}
            report = self.made.report(FILED)
            self.run.claim(report.failures <= before, f"it failed: {report}")

    async def revoke_file(self) -> None:
        """The token is good no more; somebody puts a new one there."""
        async with self.alone(FILED), self.few_calls():
            self.tokens.good[FILED] = set()
            await self.until_told(FILED, "http.unauthorized", State.FAILED)
            await self.last_a_while()
        async with self.alone(FILED):
            token = self.new_token()
            self.tokens.good[FILED] = {token}
            self.write_file(self.token_file, token)
            await self.until_over(FILED)

    async def grant_again(self) -> None:
        """The token is good no more, and then it is good again: nothing here changed that could be watched."""
        async with self.alone(FILED):
            good, self.tokens.good[FILED] = self.tokens.good[FILED], set()
            async with self.few_calls():
                await self.until_told(FILED, "http.unauthorized", State.FAILED)
                await self.last_a_while()
            self.tokens.good[FILED] = good
            await self.until_over(FILED)

    async def lose_file(self) -> None:
        """The file is gone for a while; what runs runs on."""
        async with self.alone(FILED):
            before = self.made.report(FILED)
            token = await asyncio.to_thread(self.read_file, self.token_file)
            os.unlink(self.token_file)  # noqa: PTH108
            await self.until_told(FILED, "version.refused", State.RUNNING)
            now = self.made.report(FILED)
            self.run.claim(now.since == before.since and now.failures <= before.failures, f"it did not run on: {now}")
            self.write_file(self.token_file, token)
            await self.until_over(FILED)

    async def revoke_variable(self) -> None:
        """A token of the environment takes a restart of the worker."""
        async with self.alone(SET), self.few_calls():
            self.tokens.good[SET] = set()
            await self.until_told(SET, "http.unauthorized", State.FAILED)
            await self.last_a_while()
        token = self.new_token()
        self.tokens.good[SET] = {token}
        os.environ[VARIABLE] = token
        await self.made.stop()
        for one in (*SINKS, COPY):
            self.disturbed[one] = self.disturbed.get(one, 0) + AT_ONCE
        await self.made.start()
        await self.until_over(*SINKS, COPY)

    async def change_certificate(self) -> None:
        """The target shows a certificate of an authority that nobody trusts yet."""
        async with self.alone(SECURED):
            authority = issue("another authority")
            self.tokens.show(issue("target", authority))
            await self.until(f"told: {SECURED} TLS", lambda: "TLS" in (self.made.report(SECURED).reason or ""))
            self.run.claim(self.made.report(SECURED).hint, "no hint for TLS")
            await self.last_a_while()
            self.write_file(self.ca_file, authority.pem)
            await self.until_over(SECURED)

    async def change_password(self) -> None:
        """Kafka knows the worker's user by another password, which clients find out when they sign in again."""
        assert self.rights is not None
        for one in (*SINKS, COPY):
            self.disturbed[one] = self.disturbed.get(one, 0) + HELD_AT_MOST
        await asyncio.to_thread(self.rights.set_password, "another one")
        await self.until_told(STEADY, "kafka.authentication", State.RESTARTING)
        await self.last_a_while()
        await asyncio.to_thread(self.rights.set_password, PASSWORD)
        await self.until_over(*SINKS, COPY)

    async def deny_topic(self) -> None:
        """The stream may not write any more."""
        await self.deny(COPY, "topics", self.copies, AclOperation.WRITE, "kafka.denied_topic")

    async def deny_group(self) -> None:
        """A sink may not be in its group any more."""
        await self.deny(STEADY, "groups", self.made.names.group(STEADY), AclOperation.READ, "kafka.denied_group")

    async def deny(self, pipeline: str, kind: str, name: str, operation: AclOperation, code: str) -> None:
        """A right is taken away, and granted again."""
        assert self.rights is not None
        async with self.alone(pipeline):
            self.disturbed[pipeline] += HELD_AT_MOST
            await asyncio.to_thread(self.rights.deny, kind, name, operation)
            await self.until_told(pipeline, code, State.FAILED)
            await self.last_a_while()
            await asyncio.to_thread(self.rights.deny_no_more, kind, name, operation)
            await self.until_over(pipeline)

    @contextlib.asynccontextmanager
    async def few_calls(self) -> AsyncIterator[None]:
        """What was under way is refused, then one call each few seconds."""
        refused, begun = self.tokens.refused, time.monotonic()
        yield
        calls = self.tokens.refused - refused
        most = AT_ONCE + 2 + (time.monotonic() - begun) / TRY_SECONDS
        self.run.claim(calls <= most, f"{calls} calls were refused, where {most:.0f} are accounted for")

    # --- files ---

    @staticmethod
    def write_file(name: str, text: str) -> None:
        """As careful people do it: beside it, then in its place."""
        with open(f"{name}.new", "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)
        os.replace(f"{name}.new", name)  # noqa: PTH105

    @staticmethod
    def read_file(name: str) -> str:
        """What is in a file."""
        with open(name, encoding="utf-8") as file:  # noqa: PTH123
            return file.read()


Turn = Callable[[Play], Awaitable[None]]
HTTP: tuple[Turn, ...] = (
    Play.rotate_file,
    Play.revoke_file,
    Play.grant_again,
    Play.lose_file,
    Play.change_certificate,
    Play.revoke_variable,
)
KAFKA: tuple[Turn, ...] = (Play.change_password, Play.deny_topic, Play.deny_group)


@row(
    29,
    "rotation",
    load="{rate} events/s to four sinks and a stream",
    fault="{times} times a token, a file, a certificate, a password or a right is changed or taken away, and mended",
    full={"rate": 50, "times": 24, "kafka": 1},
    short={"rate": 50, "times": 1, "kafka": 0},
    minutes=12,
)
async def rotation(run: Run) -> None:
    """The cause is named soon, and over soon after it is mended; nothing is lost; what a file holds takes no restart."""
    rights, outside, options = None, None, None
    if run["kafka"]:
        # Signed-in clients are asked for their password again, so that one that changed shows without a restart of the broker.
        broker = await run.own_broker(authorizer=True, overrides={REAUTHENTICATION: "3000"})
        outside = KafkaSettings(broker.direct)
        rights, bootstrap = Rights(outside, USER), broker.bootstrap
        options = {**broker.client_options, "sasl.username": USER, "sasl.password": PASSWORD}
    else:
        outside = await run.kafka()
        bootstrap = outside.bootstrap
    tokens = Tokens(run)
    authority = issue("authority")
    tokens.show(issue("target", authority))
    await tokens.server.start()
    await tokens.tls.start(tokens.context)
    try:
        async with bus(bootstrap, run.folder / "worker", options=options) as made:
            if rights is not None:
                await asyncio.to_thread(rights.set_password, PASSWORD)
                await asyncio.to_thread(rights.grant, made.names.namespace, "topics", "transactions", "groups")
            door = Door(outside, made.name("events"))
            folder = run.folder.absolute()
            play = Play(run, made, tokens, rights, door, str(folder / "token"), str(folder / "authority.pem"))
            await _play(play, authority)
            await made.stop()
            history = await asyncio.to_thread(_history, play, outside)
        run.judge(
            history,
            [Promise(one, (play.topic,), most_repeats=play.disturbed.get(one, 0)) for one in SINKS]
            + [Promise(COPY, (play.topic,))],
        )
        kinds = _kinds(run)
        for turn in kinds:
            run.must_fire(_called(turn), run["times"] // len(kinds))
        run.note("events", play.count)
        run.note("calls refused", tokens.refused)
        for kind, seconds in sorted(play.slowest.items()):
            run.note(f"slowest {kind}, s", round(seconds, 1))
    finally:
        await tokens.server.stop()
        await tokens.tls.stop()


async def _play(play: Play, authority: Issued) -> None:
    """Everything under load, and one turn after the other."""
    run, made = play.run, play.made
    first = play.new_token()
    play.tokens.good = {FILED: {first}, SET: {first}}
    os.environ[VARIABLE] = first
    os.environ[FOLDERS] = os.path.dirname(play.token_file)  # noqa: PTH120
    play.write_file(play.token_file, first)
    play.write_file(play.ca_file, authority.pem)
    await made.start(_manifests(play))
    await made.until_running(*SINKS, COPY)
    writing = asyncio.create_task(play.write())
    try:
        for turn in _turns(run):
            await turn(play)
            run.fires({_called(turn): 1})
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    await asyncio.to_thread(play.door.finish)
    await made.until(
        lambda: all(made.counts(one).get("delivered") == play.count for one in (*SINKS, COPY)), "everything delivered"
    )


def _turns(run: Run) -> list[Turn]:
    """So many turns, each kind as often as the others, in an order of chance."""
    kinds = _kinds(run)
    turns: list[Turn] = []
    while len(turns) < run["times"]:
        turns += run.chance.sample(kinds, len(kinds))
    return turns[: run["times"]]


def _kinds(run: Run) -> list[Turn]:
    return [*HTTP, *(KAFKA if run["kafka"] else ())]


def _called(turn: Turn) -> str:
    return turn.__name__.replace("_", " ")


def _manifests(play: Play) -> str:
    url, topic = play.tokens.server.url, play.topic

    def bearer(name: str, token: str) -> str:
        return http_connection(name, url).replace("http: {", f"auth: {{type: bearer, token: '{token}'}}, http: {{")

    trusting = http_connection(SECURED, play.tokens.tls.url).replace("http: {", f"http: {{ca_file: {play.ca_file}, ")
    text = topic_manifest(topic, 4, schema=EVENT) + topic_manifest(play.copies, 4, schema=EVENT)
    text += bearer(FILED, f"${{file:{play.token_file}}}") + bearer(SET, f"${{env:{VARIABLE}}}")
    text += trusting + http_connection(STEADY, url)
    retry = "attempts: 1000, min_delay: 20ms, max_delay: 500ms"
    text += "".join(http_sink(one, topic, connection=one, retry=retry) for one in SINKS)
    return (
        text
        + f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {COPY}}}
spec: {{from: "{topic}", start: earliest, steps: [], to: "{play.copies}"}}
"""
    )


def _history(play: Play, outside: KafkaSettings) -> History:
    history = play.tokens.history
    history.extend(play.door.facts)
    history.extend(gather.commits(outside, play.made.names, [*SINKS, COPY]))
    history.extend(
        Effect(next(value.decode() for name, value in headers_of(one) if name == ID), COPY)
        for one in gather.committed(outside, play.copies)
    )
    return history
