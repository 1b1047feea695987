"""Secrets that change under a running bus, and refusals that end: both take effect by themselves, soon, and for their pipelines only."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
from bus_harness import Asked, Bus, Endpoint, bus, http_connection, http_sink, order, topic_manifest
from conftest import KafkaUnderTest

from trunkline.bus import states
from trunkline.bus.states import State
from trunkline.bus.worker import retrying, secretwatch

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """What a worker does every few seconds it does ten times as often."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secretwatch, "WATCH_SECONDS", 0.2)
        patch.setattr(states, "SOON_SECONDS", 0.4)
        patch.setattr(retrying, "CROWD_SECONDS", 0.0)
        yield


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    kafka: KafkaUnderTest, endpoint: Endpoint, tmp_path_factory: pytest.TempPathFactory, quick: None
) -> AsyncIterator[Bus]:
    async with bus(kafka.bootstrap, tmp_path_factory.mktemp("worker")) as made:
        await made.start(http_connection("peer", endpoint.url))
        yield made


class Account:
    """A sink whose token is in a file, at an endpoint that knows which tokens are good."""

    def __init__(self, running: Bus, endpoint: Endpoint, name: str, folder: Path) -> None:
        self.bus, self.name, self.topic = running, name, running.name(name)
        self.file = folder / "token"
        self.good = {"token-one"}
        self._endpoint = endpoint
        self._sent = 0
        endpoint.answers[f"/{name}"] = self._answer

    def _answer(self, asked: Asked, _times: int) -> int:
        return 200 if asked.headers.get("Authorization", "").removeprefix("Bearer ") in self.good else 401

    @property
    def manifests(self) -> str:
        auth = f"auth: {{type: bearer, token: '${{file:{self.file}}}'}}, http: {{"
        connection = http_connection(f"{self.name}-peer", self._endpoint.url).replace("http: {", auth)
        return (
            topic_manifest(self.topic) + connection + http_sink(self.name, self.topic, connection=f"{self.name}-peer")
        )

    async def begin(self, token: str | None = "token-one") -> None:
        if token is not None:
            self.file.write_text(token)
        await self.bus.add(self.manifests)

    async def send(self, count: int = 3) -> None:
        first, self._sent = self._sent, self._sent + count
        await self.bus.send_orders(self.topic, [order(n, f"c{n}") for n in range(first, self._sent)])

    async def until_delivered(self) -> None:
        await self.bus.until(lambda: self.bus.counts(self.name).get("delivered") == self._sent, "everything delivered")
        ids = [one["id"] for one in self._endpoint.effects_at(f"/{self.name}")]
        assert sorted(ids) == list(range(self._sent))

    @property
    def tokens(self) -> list[str]:
        """The tokens of the requests so far."""
        return [one.headers["Authorization"].removeprefix("Bearer ") for one in self._endpoint.to(f"/{self.name}")]


@pytest_asyncio.fixture(loop_scope="module")
async def account(
    running: Bus, endpoint: Endpoint, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Account]:
    made = Account(running, endpoint, "a" + str(abs(hash(request.node.name)) % 10**8), tmp_path)
    yield made
    await running.remove(made.manifests)


# --- secrets of files ---


async def test_a_secret_that_changed_takes_effect_without_a_restart_of_anything_else(
    running: Bus, account: Account, endpoint: Endpoint
) -> None:
    other = running.name("other")
    manifests = topic_manifest(other) + http_sink("other", other, connection="peer")
    await running.add(manifests)
    await account.begin()
    await running.until_running("other", account.name)
    await account.send()
    await account.until_delivered()
    since = running.report("other").since
    account.good |= {"token-two"}

    account.file.write_text("token-two")

    async def used() -> bool:
        await account.send(1)
        return account.tokens[-1] == "token-two"

    await running.until(used, "the new token in use")
    await account.until_delivered()
    report = running.report(account.name)
    assert (report.state, report.failures, report.cause) == (State.RUNNING, 0, None)
    assert (running.report("other").since, running.report("other").failures) == (since, 0)
    await running.remove(manifests)


async def test_a_secret_that_is_gone_leaves_what_runs_running_and_is_told(running: Bus, account: Account) -> None:
    await account.begin()
    await running.until_running(account.name)
    since = running.report(account.name).since

    account.file.unlink()

    await running.until(lambda: running.report(account.name).code == "version.refused", "told")
    report = running.report(account.name)
    assert (report.state, report.since) == (State.RUNNING, since)
    assert report.cause is not None
    assert report.cause.error_code == "secret.missing"
    assert "what its secrets hold now can't be used" in report.cause.reason
    await account.send()
    await account.until_delivered()

    account.file.write_text("token-one")

    await running.until(lambda: running.report(account.name).cause is None, "all is well")
    await account.send()
    await account.until_delivered()


async def test_a_secret_that_appears_ends_the_wait_for_it(running: Bus, account: Account) -> None:
    await account.begin(None)
    report = await running.until_failed(account.name, failures=2)
    assert (report.state, report.code) == (State.FAILED, "secret.missing")
    assert (report.restart_at or 0) - report.at > 60, "else it would be tried again anyway"
    await account.send()

    account.file.write_text("token-one")

    await account.until_delivered()


# --- refusals that end ---


@pytest.mark.slow
async def test_a_refused_token_costs_a_call_a_try_and_its_end_is_found_without_anybodys_help(
    running: Bus, account: Account, endpoint: Endpoint
) -> None:
    account.good = set()
    await account.begin()
    await running.until_running(account.name)
    await account.send(200)
    report = await running.until_failed(account.name, failures=2)
    assert (report.state, report.code) == (State.FAILED, "http.unauthorized")

    async def calls_of(tries: int) -> int:
        """The calls of so many more tries, each of which ends with another time for the next one."""
        before, times = len(account.tokens), set()
        while len(times) <= tries:
            times.add(running.report(account.name).restart_at)
            found = running.report(account.name)
            assert (found.state, found.since, found.failures) == (State.FAILED, report.since, 2)
            assert found.code == "http.unauthorized"
            await asyncio.sleep(0.02)
        return len(account.tokens) - before

    assert 1 <= await calls_of(3) <= 3

    account.good = {"token-one"}

    await account.until_delivered()
    await running.until(lambda: running.report(account.name).state is State.RUNNING, "RUNNING")
    assert running.report(account.name).cause is None


@pytest.mark.slow
async def test_what_ended_for_one_pipeline_is_tried_at_once_by_those_that_failed_alike(
    running: Bus, account: Account, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "second").mkdir()
    second = Account(running, endpoint, "second", tmp_path / "second")
    account.good = second.good = set()
    for one in (account, second):
        await one.begin()
        await one.send()
        await running.until_failed(one.name, failures=2)
    monkeypatch.setattr(states, "SOON_SECONDS", 3600.0)
    first_try = running.report(second.name).restart_at
    await running.until(
        lambda: all(
            (running.report(one.name).restart_at or 0) - running.report(one.name).at > 60 for one in (account, second)
        ),
        "both wait for long",
    )
    assert running.report(second.name).restart_at != first_try
    account.good = second.good = {"token-one", "token-two"}

    account.file.write_text("token-two")

    await account.until_delivered()
    await second.until_delivered()
    await running.remove(second.manifests)
