"""Each way in which Kafka can be away or refuse clients, met by a worker at its work: every pipeline says so, and goes on by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from bus_harness import Endpoint, bus, http_connection, http_sink, order, topic_manifest
from causes import Told, some, told, told_no_more

from tests.integration.kafka_listeners import PASSWORD, USER, ManyListeners, scram
from tests.rights import Rights
from trunkline.bus.kafka import KafkaHealth, KafkaSettings
from trunkline.bus.kafka.refusals import KINDS
from trunkline.bus.states import State
from trunkline.control.status import PipelineStatus
from trunkline.control.workerstatus import ask_worker

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]
NAME = "held-up"
UNKNOWN = "no-such-broker.invalid:9092"
Act = Callable[["Scene"], object]
"""Blocks."""


@dataclass
class Scene:
    """A worker that reaches its broker by the door."""

    listeners: ManyListeners
    home: str
    patch: pytest.MonkeyPatch

    def leads_to(self, listener: str) -> None:
        """Behind the door is another listener, with which clients begin anew."""
        self.listeners.open_door(listener)

    def password(self, password: str) -> None:
        """The worker's user has this password, and the connections that stand end."""
        Rights(self.listeners.settings("ASIDE"), USER).set_password(password)
        self.leads_to(self.home)

    def away(self, on: bool) -> None:
        assert self.listeners.door is not None
        self.listeners.door.away(on)

    def silent(self, on: bool) -> None:
        assert self.listeners.door is not None
        self.listeners.door.black_hole(on)

    def unnamed(self) -> None:
        """The name servers know the broker no more. What they say is not ours to change, so new clients are given another name."""

        def unknown(health: KafkaHealth) -> KafkaSettings:
            return replace(health.settings, bootstrap=UNKNOWN, health=None)

        self.patch.setattr(KafkaHealth, "settings_of_probe", property(unknown))
        self.away(on=True)

    def named(self) -> None:
        self.patch.undo()
        self.away(on=False)


def leads_to(listener: str) -> Act:
    return lambda scene: scene.leads_to(listener)


def back(scene: Scene) -> None:
    """The door leads where it did."""
    scene.leads_to(scene.home)


@dataclass(frozen=True, kw_only=True)
class Case(Told):
    """A listener at which a worker works, what it meets, and what ends that."""

    at: str = "OPEN"
    begin: Act
    end: Act = back
    state: State = State.RESTARTING
    says: str = "ADDRESS"
    hint: str = ""
    fields: dict[str, Any] = field(default_factory=lambda: {"since": some})


CASES = {
    "away": Case(
        code="kafka.away",
        says="the Kafka broker has gone away",
        begin=lambda scene: scene.away(on=True),
        end=lambda scene: scene.away(on=False),
        lasts=12.0,
    ),
    "killed": Case(
        code="kafka.away",
        at="CLIENT",
        says="the Kafka broker has gone away",
        begin=lambda scene: scene.listeners.broker.kill(),
        end=lambda scene: scene.listeners.broker.start(),
    ),
    "silent": Case(
        code="kafka.timeout", begin=lambda scene: scene.silent(on=True), end=lambda scene: scene.silent(on=False)
    ),
    "unknown name": Case(
        code="kafka.unknown_host", says=UNKNOWN, begin=lambda scene: scene.unnamed(), end=lambda scene: scene.named()
    ),
    "addresses that nobody has": Case(code="kafka.advertised", says="broker-7.invalid", begin=leads_to("LOST")),
    "no TLS": Case(code="kafka.plaintext_to_tls", begin=leads_to("TLS")),
    "no sign-in": Case(code="kafka.sasl_required", begin=leads_to("CLIENT")),
    "TLS where there is none": Case(code="kafka.tls_to_plaintext", at="TLS", begin=leads_to("OPEN")),
    "another authority": Case(code="kafka.tls_ca", at="TLS", begin=leads_to("STRANGE")),
    "an expired certificate": Case(code="kafka.tls_expired", at="TLS", begin=leads_to("EXPIRED")),
    "a certificate for another name": Case(code="kafka.tls_hostname", at="TLS", begin=leads_to("MISNAMED")),
    "no client certificate": Case(code="kafka.tls_client_certificate", at="TLS", begin=leads_to("MUTUAL")),
    "a sign-in where there is none": Case(code="kafka.sasl_unexpected", at="CLIENT", begin=leads_to("OPEN")),
    "another mechanism": Case(code="kafka.sasl_mechanism", at="CLIENT", begin=leads_to("PLAIN")),
    "a password that was changed": Case(
        code="kafka.authentication",
        at="CLIENT",
        begin=lambda scene: scene.password("another"),
        end=lambda scene: scene.password(PASSWORD),
        lasts=12.0,
    ),
}


@pytest.fixture(scope="module")
def listeners(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ManyListeners]:
    made = ManyListeners(tmp_path_factory.mktemp("listeners"), door=True)
    assert made.door is not None
    try:
        with made.broker:
            yield made
    finally:
        made.door.stop()


def options_at(listener: str, listeners: ManyListeners) -> dict[str, str]:
    """What a client needs at a listener."""
    tls = {"security.protocol": "SSL", "ssl.ca.location": str(listeners.authority)}
    return {"OPEN": {}, "TLS": tls, "CLIENT": scram()}[listener]


@pytest.mark.parametrize("name", CASES)
async def test_a_worker_whose_kafka_is_away_or_refuses_it_says_why_and_goes_on(
    name: str, listeners: ManyListeners, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    address = listeners.open_door(case.at)
    wanted = replace(case, says=case.says.replace("ADDRESS", address), hint=KINDS[case.code].hint)
    async with bus(address, tmp_path) as made:
        made.settings = KafkaSettings(address, options_at(case.at, listeners))
        topic, scene = made.name("orders"), Scene(listeners, case.at, monkeypatch)
        await made.start(
            topic_manifest(topic) + http_connection("peer", endpoint.url) + http_sink(NAME, topic, connection="peer")
        )
        await made.until_running(NAME)

        async def status() -> PipelineStatus:
            assert made.worker is not None
            (found,) = await asyncio.to_thread(ask_worker, made.worker.url, NAME)
            return found

        await asyncio.to_thread(case.begin, scene)
        await told(made, NAME, wanted, status)
        await asyncio.to_thread(case.end, scene)
        await told_no_more(made, NAME, case.code, status)
        await made.send_orders(topic, [order(1)])
        await made.until(lambda: made.counts(NAME).get("delivered") == 1, "what came after it")
