"""The suites themselves: each fault that they are there for is planted in a good plug-in, and must be found."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from aiohttp import web

from connectors.http_poll.conformance import HttpPollKit
from connectors.http_poll.source import HttpPollSource
from connectors.webhook.conformance import WebhookKit
from connectors.webhook.source import WebhookSource
from sinks.http.conformance import HttpSinkKit
from sinks.http.sink import HttpSink
from streams.conformance import MapKit, SplitKit
from streams.map import MapStep
from streams.split import SplitStep
from trunkline.core.contracts import (
    Batch,
    PluginContext,
    Position,
    Reception,
    RejectedInput,
    Request,
    SourceBatch,
    Step,
)
from trunkline.core.errors import CheckFailedError, RetriableError
from trunkline.core.event import Event
from trunkline.core.settings import Settings, setting
from trunkline.core.testing import push_source_suite, sink_suite, source_suite, step_suite
from trunkline.core.testing.declarations import looks_secret
from trunkline.core.testing.lookup import suites_of
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown, Verdict

Suite = Any


def check(suite: type[Suite], test: str, folder: Path) -> None:
    """Runs one test of a suite by hand."""
    instance = suite()
    kit = suite.factory(folder)
    method = getattr(instance, test)
    method(kit) if "kit" in method.__code__.co_varnames[: method.__code__.co_argcount] else method()


# --- sinks ---


class OneVerdictTooFew(HttpSink):
    async def write(self, batch: Batch) -> Sequence[Verdict]:
        return list(await super().write(batch))[1:]


class OkWithoutDelivery(HttpSink):
    async def write(self, batch: Batch) -> Sequence[Verdict]:
        return [Ok() for _ in batch.events]


class RetriesBadRecordsForEver(HttpSink):
    async def write(self, batch: Batch) -> Sequence[Verdict]:
        return [Retry(found.reason) if isinstance(found, Dead) else found for found in await super().write(batch)]


class DeadOnDisturbance(HttpSink):
    async def write(self, batch: Batch) -> Sequence[Verdict]:
        return [Dead(found.reason) if isinstance(found, Retry) else found for found in await super().write(batch)]


class ForgetsTheWait(HttpSink):
    async def write(self, batch: Batch) -> Sequence[Verdict]:
        return [Retry(found.reason) if isinstance(found, Retry) else found for found in await super().write(batch)]


class BlamesRecordsForCredentials(HttpSink):
    async def write(self, batch: Batch) -> Sequence[Verdict]:
        try:
            return await super().write(batch)
        except Exception as error:  # noqa: BLE001
            return [Dead(str(error)) for _ in batch.events]


class SwallowsCancellation(HttpSink):
    async def write(self, batch: Batch) -> Sequence[Verdict]:
        try:
            return await super().write(batch)
        except asyncio.CancelledError:
            return [Unknown("cancelled") for _ in batch.events]


class LeavesATask(HttpSink):
    async def open(self, context: PluginContext) -> None:
        await super().open(context)
        self.background = asyncio.create_task(asyncio.Event().wait())


class LeavesASocket(HttpSink):
    kept: ClassVar[list[Any]] = []

    async def open(self, context: PluginContext) -> None:
        import socket

        await super().open(context)
        self.kept.append(socket.socket())


class SaysTheToken(HttpSink):
    async def open(self, context: PluginContext) -> None:
        await super().open(context)
        context.log.debug("opened", token=self.connection.auth.token.reveal())


class TokenInAVerdict(HttpSink):
    async def write(self, batch: Batch) -> Sequence[Verdict]:
        return [Ok(self.connection.auth.token.reveal()) for _ in await super().write(batch)]


class DeliversTwice(HttpSink):
    async def write(self, batch: Batch) -> Sequence[Verdict]:
        await super().write(batch)
        for event in batch.events:
            event.idempotency_key += "-again"
        return await super().write(batch)


_DELIVERS = "test_it_gives_one_verdict_for_each_record_and_delivers_those_it_calls_ok"


@pytest.mark.parametrize(
    ("plugin", "test"),
    [
        (OneVerdictTooFew, _DELIVERS),
        (OkWithoutDelivery, _DELIVERS),
        (TokenInAVerdict, _DELIVERS),
        (DeliversTwice, _DELIVERS),
        (RetriesBadRecordsForEver, "test_a_bad_record_is_dead_and_its_neighbours_are_delivered"),
        (DeadOnDisturbance, "test_a_disturbance_is_no_verdict_on_the_record_which_a_second_attempt_delivers"),
        (ForgetsTheWait, "test_a_wait_that_the_other_side_asks_for_is_passed_on"),
        (BlamesRecordsForCredentials, "test_refused_credentials_stop_the_pipeline_and_blame_no_record"),
        (SwallowsCancellation, "test_a_cancelled_write_ends_and_leaves_no_task"),
        (LeavesATask, "test_it_opens_and_closes_without_a_trace"),
        (LeavesASocket, "test_it_opens_and_closes_without_a_trace"),
        (SaysTheToken, "test_it_opens_and_closes_without_a_trace"),
    ],
)
def test_a_fault_of_a_sink_is_found(plugin: type[HttpSink], test: str, tmp_path: Path) -> None:
    check(sink_suite(HttpSink, factory=HttpSinkKit), test, tmp_path)
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(sink_suite(plugin, factory=HttpSinkKit), test, tmp_path)
    while LeavesASocket.kept:
        LeavesASocket.kept.pop().close()


# --- sources ---


class _Meddler(HttpPollSource):
    """A source whose batches are changed on their way."""

    def changed(self, batch: SourceBatch, position: Position | None) -> SourceBatch:
        raise NotImplementedError

    async def poll(self, split: str, position: Position | None) -> SourceBatch:
        return self.changed(await super().poll(split, position), position)


class SkipsAnEvent(_Meddler):
    def changed(self, batch: SourceBatch, position: Position | None) -> SourceBatch:
        return SourceBatch(batch.events[:1], batch.rejected, batch.position, batch.pause)


class ForgetsItsPosition(_Meddler):
    def changed(self, batch: SourceBatch, position: Position | None) -> SourceBatch:
        return SourceBatch(batch.events, batch.rejected, None if batch.events else batch.position, batch.pause)


class KnowsMoreThanItsPosition(_Meddler):
    """Keeps in memory what belongs into the position."""

    seen: int = 0

    def changed(self, batch: SourceBatch, position: Position | None) -> SourceBatch:
        events = [event for event in batch.events if event.value["number"] >= self.seen or self.seen == 0]
        self.seen += 1
        late = events if self.seen > 1 or position is None else events[1:]
        return SourceBatch(late, batch.rejected, batch.position, batch.pause)


class BusyWhenIdle(_Meddler):
    def changed(self, batch: SourceBatch, position: Position | None) -> SourceBatch:
        return SourceBatch(batch.events, batch.rejected, batch.position, 0.0)


class DropsBadInput(_Meddler):
    def changed(self, batch: SourceBatch, position: Position | None) -> SourceBatch:
        return SourceBatch(batch.events, (), batch.position, batch.pause)


class NoPlace(_Meddler):
    def changed(self, batch: SourceBatch, position: Position | None) -> SourceBatch:
        return SourceBatch(
            batch.events,
            [RejectedInput(one.raw, one.reason, "") for one in batch.rejected],
            batch.position,
            batch.pause,
        )


class ImpatientSource(HttpPollSource):
    async def poll(self, split: str, position: Position | None) -> SourceBatch:
        try:
            return await super().poll(split, position)
        except RetriableError as error:
            raise RetriableError(error.message) from None


class HopefulSource(HttpPollSource):
    async def poll(self, split: str, position: Position | None) -> SourceBatch:
        try:
            return await super().poll(split, position)
        except Exception as error:
            raise RetriableError("later, perhaps") from error


@pytest.mark.parametrize(
    ("plugin", "test"),
    [
        (SkipsAnEvent, "test_one_pass_gives_everything_in_order_and_once"),
        (ForgetsItsPosition, "test_positions_are_small_and_json"),
        (KnowsMoreThanItsPosition, "test_from_each_position_it_gives_exactly_the_rest"),
        (BusyWhenIdle, "test_a_poll_that_finds_nothing_loses_nothing"),
        (DropsBadInput, "test_bad_input_is_kept_with_its_reason_and_place_and_stops_nothing"),
        (NoPlace, "test_bad_input_is_kept_with_its_reason_and_place_and_stops_nothing"),
        (ImpatientSource, "test_a_wait_that_the_other_side_asks_for_is_passed_on"),
        (HopefulSource, "test_refused_credentials_stop_the_pipeline"),
    ],
)
def test_a_fault_of_a_source_is_found(plugin: type[HttpPollSource], test: str, tmp_path: Path) -> None:
    check(source_suite(HttpPollSource, factory=HttpPollKit), test, tmp_path)
    with pytest.raises((AssertionError, RetriableError)):
        check(source_suite(plugin, factory=HttpPollKit), test, tmp_path)


class Credulous(WebhookSource):
    async def receive(self, request: Request) -> Reception:
        self._verify = lambda headers, body, now: type("Proof", (), {"signed_id": None})()
        return await super().receive(request)


class Forgetful(WebhookSource):
    async def receive(self, request: Request) -> Reception:
        found = await super().receive(request)
        return Reception(found.status, found.events, found.rejected, reason=found.reason)


class FailsOnGarbage(WebhookSource):
    async def receive(self, request: Request) -> Reception:
        if request.body:
            json.loads(request.body)
        return await super().receive(request)


@pytest.mark.parametrize(
    ("plugin", "test"),
    [
        (Credulous, "test_a_forged_request_is_refused_and_makes_nothing"),
        (Forgetful, "test_a_repeated_request_is_known_by_its_key"),
        (FailsOnGarbage, "test_garbage_of_a_stranger_never_raises_and_makes_nothing"),
    ],
)
def test_a_fault_of_a_source_that_receives_is_found(plugin: type[WebhookSource], test: str, tmp_path: Path) -> None:
    check(push_source_suite(WebhookSource, factory=WebhookKit), test, tmp_path)
    with pytest.raises((AssertionError, ValueError)):
        check(push_source_suite(plugin, factory=WebhookKit), test, tmp_path)


# --- steps ---


class ForgetsToSayChanged(MapStep):
    def process(self, event: Event) -> Event:
        super().process(event)
        event.changed = False
        return event


class AnnouncesTheInput(MapStep):
    def prepare(self, context: Any) -> Any:
        super().prepare(context)
        return context.schema


class ChangesHeaders(MapStep):
    def process(self, event: Event) -> Event:
        event.headers.append(("x", b"1"))
        return super().process(event)


class RandomParts(SplitStep):
    def process(self, event: Event) -> list[Event] | None:
        import uuid

        parts = super().process(event)
        for part in parts or []:
            part.headers = [(name, uuid.uuid4().bytes if name == "ce_id" else value) for name, value in part.headers]
        return parts


class SharingParts(SplitStep):
    def process(self, event: Event) -> list[Event] | None:
        parts = super().process(event)
        for part in parts or []:
            part.value = parts[0].value if parts else None
        return parts


@pytest.mark.parametrize(
    ("good", "kit", "plugin", "test"),
    [
        (MapStep, MapKit, ForgetsToSayChanged, "test_an_event_is_marked_as_changed_exactly_where_it_may_have_changed"),
        (MapStep, MapKit, AnnouncesTheInput, "test_what_comes_out_fits_the_schema_it_announced"),
        (MapStep, MapKit, ChangesHeaders, "test_headers_are_replaced_and_never_changed"),
        (SplitStep, SplitKit, RandomParts, "test_a_replay_gives_the_same_events"),
        (SplitStep, SplitKit, SharingParts, "test_the_parts_of_an_event_have_ids_of_their_own_and_share_nothing"),
    ],
)
def test_a_fault_of_a_step_is_found(good: type[Step], kit: Any, plugin: type[Step], test: str, tmp_path: Path) -> None:
    check(step_suite(good, factory=kit), test, tmp_path)
    with pytest.raises(Exception, match=r".") as caught:
        check(step_suite(plugin, factory=kit), test, tmp_path)
    assert type(caught.value).__name__ in {"AssertionError", "ValidationError"}


# --- declarations ---


class CarelessSettings(Settings):
    api_key: str = setting("", description="The key.")
    badName: int = setting(1, description="Odd.")  # noqa: N815
    silent: int = 1


class Careless(HttpSink):
    settings_type = CarelessSettings  # type: ignore[assignment]
    summary = "no sentence"


@pytest.mark.parametrize(
    "test",
    [
        "test_every_settings_field_is_described",
        "test_every_settings_field_is_named_in_snake_case",
        "test_every_secret_is_typed_as_one",
        "test_the_summary_is_one_sentence",
        "test_the_folder_has_a_readme",
    ],
)
def test_careless_declarations_are_found(test: str, tmp_path: Path) -> None:
    check(sink_suite(HttpSink, factory=HttpSinkKit), test, tmp_path)
    with pytest.raises(AssertionError):
        check(sink_suite(Careless, factory=HttpSinkKit), test, tmp_path)


@pytest.mark.parametrize(
    "name", ["password", "client_secret", "secrets", "token", "api_key", "private_key", "passphrase"]
)
def test_names_of_secrets_are_known(name: str) -> None:
    assert looks_secret(name)


@pytest.mark.parametrize("name", ["key", "token_url", "key_column", "host_keys", "secret_name", "sort_key"])
def test_names_that_only_speak_of_secrets_are_not_taken_for_them(name: str) -> None:
    assert not looks_secret(name)


def test_a_plugin_without_a_suite_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lonely(HttpSink):
        pass

    Lonely.__module__ = "sinks.http.sink"
    monkeypatch.setattr("trunkline.core.testing.lookup.load_plugin", lambda kind, name: Lonely)
    with pytest.raises(CheckFailedError, match="no conformance suite"):
        suites_of("sink", "lonely")
    Lonely.__module__ = "trunkline.core.lonely"
    with pytest.raises(CheckFailedError, match=r"no module trunkline\.core\.conformance"):
        suites_of("sink", "lonely")


def test_the_peer_can_fail_refuse_and_answer() -> None:
    import aiohttp

    from trunkline.core.testing.peer import HttpPeer

    async def statuses() -> list[int]:
        peer = HttpPeer(lambda asked: web.Response(status=200 + len(asked.body)))
        await peer.start()
        peer.fail(503, retry_after=1)
        found = []
        async with aiohttp.ClientSession() as session:
            for refused in (False, False, True):
                peer.refused = refused
                async with session.post(peer.url, data=b"1") as response:
                    found.append(response.status)
        await peer.stop()
        return found

    assert asyncio.run(statuses()) == [503, 201, 401]
