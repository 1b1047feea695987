"""Webhooks from the sender's request to another system's door, with real requests to the worker's listener."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import hmac
import io
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
from bus_harness import Bus, Endpoint, bus, http_connection, http_sink, order, text_headers, topic_manifest, unframed
from confluent_kafka import KafkaError, KafkaException
from conftest import KafkaUnderTest, LeavingKafka
from structlog.testing import capture_logs

from trunkline.bus.accounting.trace import find_hops
from trunkline.bus.kafka import transactional_producer
from trunkline.bus.source.deliveries import AcceptedDeliveries
from trunkline.bus.states import Desired, State

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]
SECRET = "bus-webhook-secret-1138"


@dataclass
class Sender:
    """Somebody who signs as GitHub does."""

    session: aiohttp.ClientSession
    bus: Bus

    async def post(
        self, path: str, body: bytes, *, kind: str = "push", secret: str = SECRET, **headers: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Status, answer and headers."""
        assert self.bus.worker is not None
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        own = {
            "Content-Type": "application/json",
            "X-GitHub-Event": kind,
            "X-GitHub-Delivery": os.urandom(8).hex(),
            "X-Hub-Signature-256": f"sha256={signature}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        async with self.session.post(
            self.bus.worker.ingress.url + path, data=io.BytesIO(body), headers=own
        ) as response:
            return response.status, await response.json(content_type=None), dict(response.headers)


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def secret() -> AsyncIterator[None]:
    os.environ["BUS_WEBHOOK_SECRET"] = SECRET
    yield
    del os.environ["BUS_WEBHOOK_SECRET"]


def _source(name: str, to: str, config: str = "") -> str:
    return f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: {name}}}
spec:
  connector: webhook
  config:
    path: /hooks/{name}
    verify: {{provider: github, secrets: ["${{env:BUS_WEBHOOK_SECRET}}"]}}
    {config}
  to: {to}
"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sender(
    kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Sender]:
    async with bus(kafka.bootstrap, tmp_path_factory.mktemp("worker")) as made, aiohttp.ClientSession() as session:
        orders, family = made.name("orders"), made.name("events")
        await made.start(
            http_connection("peer", endpoint.url)
            + topic_manifest(orders)
            + _source("orders", f'"{orders}"')
            + topic_manifest(f"{family}.*", schema=None)
            + _source("events", f'[{{topic: "{family}.*", name: event.kind, key: event.kind}}]', "payload: document")
            + f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: relayed}}
spec:
  from: "{orders}"
  start: earliest
  steps: [{{map: {{keep: all, set: {{amount: event.amount + 1}}}}}}]
  to: "{made.name("relayed")}"
"""
            + topic_manifest(made.name("relayed"))
            + http_sink("delivered", made.name("relayed"), connection="peer")
        )
        await made.until(lambda: _listening(made, "orders", "events"), "the sources listen")
        yield Sender(session, made)


async def _listening(made: Bus, *names: str) -> bool:
    """Whether a request to each source's path is judged: without a signature, it is refused."""
    assert made.worker is not None
    if not made.worker.ingress.url:
        return False
    async with aiohttp.ClientSession() as session:
        for name in names:
            async with session.post(f"{made.worker.ingress.url}/hooks/{name}") as response:
                if response.status != 401:
                    return False
    return True


def _body(number: int) -> bytes:
    return json.dumps(order(number, "web")).encode()


async def _ids(made: Bus) -> list[int]:
    return [one["id"] for one in await made.orders(made.name("orders"))]


async def test_a_signed_request_is_answered_when_the_broker_has_its_event_and_keeps_its_correlation_id_to_the_end(
    sender: Sender, endpoint: Endpoint
) -> None:
    status, answer, headers = await sender.post("/hooks/orders", _body(1), X_Correlation_ID="trip-4711")
    assert (status, answer["correlation_id"]) == (202, "trip-4711")
    assert headers["X-Correlation-ID"] == "trip-4711"
    assert 1 in await _ids(sender.bus)
    await sender.bus.until(lambda: 1 in endpoint.ids("/delivered"), "delivered")
    asked = next(one for one in endpoint.to("/delivered") if one.json["id"] == 1)
    assert asked.headers["X-Correlation-ID"] == "trip-4711"

    async def hops() -> list[Any]:
        found = await asyncio.to_thread(find_hops, sender.bus.settings, sender.bus.names.trace, "trip-4711")
        return found if len(found) >= 3 else []

    found = await sender.bus.until(hops, "all hops in the trace")
    assert [(hop.pipeline, hop.kind, hop.outcome) for hop in found] == [
        ("orders", "source", "delivered"),
        ("relayed", "stream", "delivered"),
        ("delivered", "sink", "delivered"),
    ]


async def test_a_forged_request_is_refused_and_publishes_nothing(sender: Sender) -> None:
    before = await _ids(sender.bus)
    status, answer, _ = await sender.post("/hooks/orders", _body(2), secret="another secret entirely")
    assert status == 401
    assert "id" not in answer
    assert await _ids(sender.bus) == before
    assert not any(b'"id": 2' in (letter.value or b"") for letter in await sender.bus.dead_letters("orders"))


async def test_a_repeated_request_makes_no_new_event_also_at_once_and_after_a_restart(sender: Sender) -> None:
    made = sender.bus
    answers = await asyncio.gather(*(sender.post("/hooks/orders", _body(3)) for _ in range(8)))
    assert sorted(status for status, _, _ in answers) == [200] * 7 + [202]
    assert all(answer["duplicate"] is True for status, answer, _ in answers if status == 200)
    first = next(answer for status, answer, _ in answers if status == 202)
    await made.stop()
    await made.start()
    await made.until(lambda: _listening(made, "orders", "events"), "the sources listen again")
    status, answer, _ = await sender.post("/hooks/orders", _body(3))
    assert (status, answer) == (200, {"duplicate": True, "id": first["id"]})
    assert (await _ids(made)).count(3) == 1


async def test_what_a_known_sender_sends_and_its_schema_refuses_is_kept_with_the_reason(sender: Sender) -> None:
    bodies = {
        "schema": json.dumps({"id": "no number", "customer": "x", "amount": 1}).encode(),
        "missing": b'{"id": 5}',
        "broken": b'{"id": ',
        "list": b"[1, 2]",
    }
    for body in bodies.values():
        status, answer, _ = await sender.post("/hooks/orders", body)
        assert status == 202
        assert answer["quarantined"]
    letters = {letter.value: letter for letter in await sender.bus.dead_letters("orders")}
    assert set(bodies.values()) <= set(letters)
    refused = letters[bodies["schema"]]
    assert refused.header("__connect.errors.connector.name") == "orders"
    assert "id" in refused.header("__connect.errors.exception.message")
    assert "/hooks/orders from 127.0.0.1" in refused.header("trunkline.place")
    assert refused.header("ce_correlationid")


async def test_events_go_to_the_topic_of_their_kind(sender: Sender) -> None:
    payloads = _payloads()
    kinds = {}
    for kind, body in payloads.items():
        status, answer, _ = await sender.post("/hooks/events", body, kind=kind)
        assert status == 202, answer
        assert "quarantined" not in answer, answer
        kinds[kind] = (body.decode(), answer["id"])
    for kind, (body, identity) in kinds.items():
        (message,) = await sender.bus.read(f"{sender.bus.name('events')}.{kind}")
        document = unframed(message.value() or b"", _document_schema())
        assert (document["kind"], document["body"]) == (kind, body)
        assert message.key() == kind.encode()
        headers = text_headers(message)
        assert (headers["ce_id"], headers["ce_specversion"]) == (identity, "1.0")
        assert headers["ce_type"] == f"github.{kind}"


def _document_schema() -> Any:
    folder = Path(__file__).parents[2] / "schemas" / "trunkline"
    return json.loads((folder / "webhook_document.avsc").read_text())


def _payloads() -> dict[str, bytes]:
    """Bodies of several kinds of event."""
    kinds = ("push", "issues", "pull_request", "watch", "release")
    return {kind: json.dumps({"kind": kind, "repository": {"full_name": "acme/shop"}}).encode() for kind in kinds}


async def test_a_body_that_is_too_large_is_refused(sender: Sender) -> None:
    status, _, _ = await sender.post("/hooks/orders", b" " * (2 * 2**20 + 1))
    assert status == 413
    bomb = gzip.compress(b" " * (8 * 2**20))
    status, _, _ = await sender.post("/hooks/orders", bomb, Content_Encoding="gzip")
    assert status in {401, 413}


async def test_while_requests_together_are_larger_than_the_worker_may_hold_senders_are_told_to_come_again(
    sender: Sender,
) -> None:
    assert sender.bus.worker is not None
    bodies = sender.bus.worker.ingress.bodies
    most, bodies.most = bodies.most, 100
    try:
        status, answer, headers = await sender.post("/hooks/orders", _body(700) + b" " * 200)
        assert (status, headers["Retry-After"]) == (503, "5"), answer
    finally:
        bodies.most = most
    status, _, _ = await sender.post("/hooks/orders", _body(700) + b" " * 200)
    assert (status, bodies.held) == (202, 0)


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("gzip", b"no gzip", 400),
        ("gzip", gzip.compress(b"{}" * 500, mtime=0)[:-9], 400),
        ("br", b"\x8b\x00\x80{}\x03", 415),
        ("gzip, gzip", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), 415),
    ],
    # Named, because the names of cases must be the same in every test process.
    ids=["foreign", "cut", "unknown", "twice"],
)
async def test_a_body_whose_encoding_can_not_be_read_is_refused_in_the_form_of_every_refusal(
    sender: Sender, encoding: str, body: bytes, status: int
) -> None:
    found, answer, _ = await sender.post("/hooks/orders", body, Content_Encoding=encoding)
    assert (found, list(answer)) == (status, ["error"])


@pytest.mark.parametrize(("desired", "state"), [(Desired.PAUSED, State.PAUSED), (Desired.STOPPED, State.STOPPED)])
async def test_a_path_of_no_source_is_not_found_and_one_that_does_not_run_now_says_so(
    sender: Sender, desired: Desired, state: State
) -> None:
    made = sender.bus
    assert (await sender.post("/hooks/nobody", _body(9)))[0] == 404
    await made.wish("orders", desired)
    await made.until(lambda: made.report("orders").state is state, str(state))
    status, _, headers = await sender.post("/hooks/orders", _body(6))
    assert (status, headers["Retry-After"]) == (503, "5")
    await made.wish("orders", Desired.RUNNING)
    await made.until(lambda: made.report("orders").state is State.RUNNING, "running")
    await made.until(lambda: _listening(made, "orders"), "it listens")
    assert (await sender.post("/hooks/orders", _body(6)))[0] in {200, 202}


async def test_the_path_of_a_source_that_was_removed_is_not_found(sender: Sender) -> None:
    made, passing = sender.bus, _source("passing", f'"{sender.bus.name("orders")}"')
    await made.add(passing)
    await made.until(lambda: _listening(made, "passing"), "the source listens")
    await made.remove(passing)

    async def not_found() -> bool:
        return (await sender.post("/hooks/passing", _body(9)))[0] == 404

    await made.until(not_found, "its path is nobody's")


async def test_many_requests_at_once_are_each_answered_and_each_published_once(sender: Sender) -> None:
    answers = await asyncio.gather(*(sender.post("/hooks/orders", _body(1000 + n)) for n in range(300)))
    assert [status for status, _, _ in answers] == [202] * 300
    ids = await _ids(sender.bus)
    assert sorted(number for number in ids if number >= 1000) == list(range(1000, 1300))
    counts = sender.bus.counts("orders")
    assert counts["read"] == counts["delivered"] + counts["filtered"] + counts["dead"]


class OneCommitUnanswered:
    """A transactional producer whose first commit takes place, while its answer never arrives."""

    unanswered = 0

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._producer, name)

    def commit_transaction(self, timeout: float) -> None:
        self._producer.commit_transaction(timeout)
        if not OneCommitUnanswered.unanswered:
            OneCommitUnanswered.unanswered += 1
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))


async def test_a_delivery_that_was_refused_though_it_had_been_committed_is_known_when_it_comes_again(
    kafka: KafkaUnderTest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "trunkline.bus.source.push.transactional_producer",
        lambda *args, **options: OneCommitUnanswered(transactional_producer(*args, **options)),
    )
    # The follower is far behind: what it reads in time is a matter of the machine's speed.
    monkeypatch.setattr(AcceptedDeliveries, "_follow", lambda self, _offset: self._stop.wait())
    async with bus(kafka.bootstrap, tmp_path / "worker") as made, aiohttp.ClientSession() as session:
        sender, topic = Sender(session, made), made.name("orders")
        await made.start(topic_manifest(topic) + _source("orders", f'"{topic}"'))
        await made.until(lambda: _listening(made, "orders"), "the source listens")

        async def accepted() -> int:
            status, _, _ = await sender.post("/hooks/orders", _body(1))
            return status if status != 503 else 0

        assert await accepted() == 0
        assert await made.until(accepted, "the delivery taken") == 200
        assert OneCommitUnanswered.unanswered == 1
        assert await _ids(made) == [1]


async def test_while_the_broker_is_away_senders_get_503_and_nothing_acknowledged_is_lost(
    leaving_kafka: LeavingKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted: list[int] = []
    async with bus(leaving_kafka.bootstrap, tmp_path / "worker") as made, aiohttp.ClientSession() as session:
        sender = Sender(session, made)
        topic = made.name("orders")
        await made.start(topic_manifest(topic) + _source("orders", f'"{topic}"'))
        await made.until(lambda: _listening(made, "orders"), "the source listens")

        async def post(number: int) -> int:
            status, _, _ = await sender.post("/hooks/orders", _body(number))
            if status == 202:
                accepted.append(number)
            return status

        async def accepts() -> bool:
            return await post(100) in {200, 202}

        assert await post(0) == 202
        monkeypatch.setattr("trunkline.bus.source.push.TIMEOUT", 2.0)
        leaving_kafka.leave()
        assert set(await asyncio.gather(*(post(1 + n) for n in range(5)))) == {503}
        monkeypatch.undo()
        leaving_kafka.come_back()
        await made.until(accepts, "requests accepted again")
        assert await post(101) == 202
        found = await _ids(made)
        assert set(accepted) <= set(found)
        assert len(found) == len(set(found))


@pytest.mark.slow
async def test_a_worker_says_that_the_broker_is_away_though_nobody_sends_and_looks_for_it_each_second(
    leaving_kafka: LeavingKafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with bus(leaving_kafka.bootstrap, tmp_path / "worker") as made, aiohttp.ClientSession() as session:
        sender = Sender(session, made)
        topic = made.name("orders")
        worker = await made.start(topic_manifest(topic) + _source("orders", f'"{topic}"'))

        async def says(status: int) -> None:
            async def told() -> bool:
                async with session.get(worker.url + "/readyz") as response:
                    return response.status == status

            await made.until(told, f"/readyz answers {status}")

        await says(200)
        monkeypatch.setattr("trunkline.bus.source.push.TIMEOUT", 0.5)
        leaving_kafka.leave()
        await says(503)
        with capture_logs() as lines:
            assert (await sender.post("/hooks/orders", _body(1)))[0] == 503

            def waits() -> list[float]:
                return [line["wait"] for line in lines if line["event"] == "the broker did not acknowledge"]

            await made.until(lambda: len(waits()) > 3, "some looks for the broker")
        assert max(waits()) <= 1
        monkeypatch.undo()
        leaving_kafka.come_back()
        await says(200)

        async def accepted() -> bool:
            return (await sender.post("/hooks/orders", _body(2)))[0] in {200, 202}

        await made.until(accepted, "requests accepted again")
