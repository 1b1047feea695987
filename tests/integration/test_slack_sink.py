"""The Slack sink against the stand-in, and the stand-in against Slack's own client library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from slack_sdk.webhook import WebhookClient

from sinks.slack.mock import SlackMock, SlackMockSettings
from sinks.slack.settings import SlackConnection, SlackSettings
from sinks.slack.sink import SlackSink
from trunkline.core.contracts import Batch, PluginContext
from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.errors import ConfigurationError, FatalError, RetriableError
from trunkline.core.event import Event
from trunkline.core.http import HttpOptions
from trunkline.core.plugins import load_plugin
from trunkline.core.secret import Secret
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown

LOOPBACK = HttpOptions(allow_private=["127.0.0.1"])
CONTEXT = PluginContext("test", "to-slack", Path(), structlog.get_logger())
TEXT = "{{ event.carrier }}{{ event.flight }} is {{ event.minutes }} min late"


@pytest.fixture
async def slack() -> AsyncIterator[SlackMock]:
    mock = SlackMock(SlackMockSettings(archived=["old"], foreign=["secret"]))
    await mock.start()
    yield mock
    await mock.stop()


def event(number: int = 1, **value: Any) -> Event:
    envelope = Envelope(f"id-{number}", "/test", "flight", correlation_id=f"corr-{number}")
    made = Event({"carrier": "UA", "flight": number, "minutes": 20} | value, headers=envelope_to_headers(envelope))
    made.idempotency_key = f"idem-{number}"
    return made


def by_token(mock: SlackMock, token: str | None = None) -> SlackConnection:
    secret = Secret.of(token or mock.environment["SLACK_BOT_TOKEN"])
    return SlackConnection(token=secret, base_url=mock.api_url, http=LOOPBACK)


def by_webhook(mock: SlackMock, url: str | None = None) -> SlackConnection:
    return SlackConnection(webhook_url=Secret.of(url or mock.webhook_url), http=LOOPBACK)


async def opened(connection: SlackConnection, **settings: Any) -> SlackSink:
    if connection.token is not None:
        settings.setdefault("channel", "#ops")
    sink = SlackSink(SlackSettings(**{"text": TEXT, "min_interval": 0.0} | settings), connection)
    try:
        await sink.open(CONTEXT)
    except BaseException:
        await sink.close()
        raise
    return sink


async def test_the_stand_in_satisfies_slack_s_own_client(slack: SlackMock) -> None:
    def use() -> None:
        client = WebClient(token=slack.environment["SLACK_BOT_TOKEN"], base_url=f"{slack.api_url}/")
        assert client.auth_test()["team"] == "Mock"
        blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "*late*"}}]
        metadata = {"event_type": "t", "event_payload": {"a": "b"}}
        posted = client.chat_postMessage(channel="#ops", text="late", blocks=blocks, metadata=metadata)
        client.chat_update(channel=posted["channel"], ts=posted["ts"], text="later")
        channels = {each["name"]: each for each in client.conversations_list()["channels"]}
        assert channels["old"]["is_archived"]
        for number in range(5):
            client.chat_postMessage(channel=channels["ops"]["id"], text=f"more {number}")
        pages = client.conversations_history(channel=posted["channel"], limit=2, include_all_metadata=True)
        messages = [message for page in pages for message in page["messages"]]
        assert [message["text"] for message in messages] == ["more 4", "more 3", "more 2", "more 1", "more 0", "later"]
        for channel, error in (("#old", "is_archived"), ("#secret", "not_in_channel"), ("#none", "channel_not_found")):
            with pytest.raises(SlackApiError, match=error):
                client.chat_postMessage(channel=channel, text="x")
        with pytest.raises(SlackApiError, match="no_text"):
            client.api_call("chat.postMessage", json={"channel": "#ops"})
        with pytest.raises(SlackApiError, match="invalid_blocks"):
            client.chat_postMessage(channel="#ops", text="x", blocks=[{"type": "section"}])
        with pytest.raises(SlackApiError, match="invalid_auth"):
            WebClient(token="xoxb-wrong", base_url=f"{slack.api_url}/").auth_test()

    await asyncio.to_thread(use)


async def test_the_stand_in_satisfies_slack_s_own_webhook_client(slack: SlackMock) -> None:
    def use() -> None:
        client = WebhookClient(slack.webhook_url)
        answer = client.send(text="hello", blocks=[{"type": "divider"}])
        assert (answer.status_code, answer.body) == (200, "ok")
        assert client.send_dict({"username": "x"}).body == "no_text"
        gone = WebhookClient(slack.webhook_url + "x").send(text="hello")
        assert (gone.status_code, gone.body) == (404, "no_service")

    await asyncio.to_thread(use)
    assert [message["text"] for message in slack.contents()] == ["hello"]


async def test_the_stand_in_throttles_as_slack_does() -> None:
    mock = SlackMock(SlackMockSettings(per_second=1, retry_after=3))
    await mock.start()

    def use() -> None:
        client = WebClient(token=mock.environment["SLACK_BOT_TOKEN"], base_url=f"{mock.api_url}/")

        def flood() -> None:
            for _ in range(50):
                client.chat_postMessage(channel="ops", text="y")

        with pytest.raises(SlackApiError) as caught:
            flood()
        assert caught.value.response.status_code == 429
        assert caught.value.response.headers["Retry-After"] == "3"

    try:
        await asyncio.to_thread(use)
    finally:
        await mock.stop()


def test_the_plug_in_is_found_by_its_name() -> None:
    assert load_plugin("sink", "slack") is SlackSink


async def test_each_event_is_one_message_that_carries_its_ids(slack: SlackMock) -> None:
    sink = await opened(
        by_token(slack), blocks=[{"type": "header", "text": {"type": "plain_text", "text": "{{ key }}!"}}]
    )
    late = event(17)
    late.raw_key = b"UA"
    [verdict] = await sink.write(Batch([late]))
    await sink.close()
    [message] = slack.contents()
    assert message["text"] == "UA17 is 20 min late"
    assert message["blocks"] == [{"type": "header", "text": {"type": "plain_text", "text": "UA!"}}]
    assert message["metadata"]["event_payload"] == {
        "correlation_id": "corr-17",
        "event_id": "id-17",
        "idempotency_key": "idem-17",
    }
    assert slack.requests[-1]["headers"]["X-Correlation-ID"] == "corr-17"
    assert verdict == Ok(f"C0MOCK0000/{message['ts']}")


async def test_a_webhook_posts_the_same_message(slack: SlackMock) -> None:
    sink = await opened(by_webhook(slack))
    assert await sink.write(Batch([event(3)])) == [Ok()]
    await sink.close()
    assert slack.contents()[0]["text"] == "UA3 is 20 min late"
    assert slack.requests[-1]["headers"]["X-Correlation-ID"] == "corr-3"
    assert json.loads(slack.requests[-1]["arguments"])["metadata"]["event_payload"]["correlation_id"] == "corr-3"


async def test_data_can_not_notify_anyone(slack: SlackMock) -> None:
    blocks = [{"type": "section", "text": {"type": "mrkdwn", "text": "{{ event.carrier }} {{ event | tojson }}"}}]
    sink = await opened(by_token(slack), blocks=blocks)
    for number, mention in enumerate(
        ["<!channel>", "<!here>", "<!everyone|x>", "<@U0MOCK>", "<!subteam^S1>", "<#C1|a>"]
    ):
        [verdict] = await sink.write(Batch([event(number, carrier=mention)]))
        assert isinstance(verdict, Ok)
    own = await opened(by_token(slack), text="<!here> {{ event.carrier }}")
    await own.write(Batch([event(9)]))
    await sink.close()
    await own.close()
    mentions = [message["mentions"] for message in slack.contents()]
    assert mentions == [[], [], [], [], [], [], ["<!here>"]]


async def test_the_channel_may_depend_on_the_event(slack: SlackMock) -> None:
    sink = await opened(by_token(slack), channel="#{{ event.team }}")
    verdicts = await sink.write(Batch([event(1, team="alerts"), event(2, team="nowhere"), event(3, team="old")]))
    await sink.close()
    assert isinstance(verdicts[0], Ok)
    assert verdicts[1] == Dead(
        "Slack refused the message: channel_not_found", code="slack.channel_not_found", access=True
    )
    assert verdicts[2] == Dead("Slack refused the message: is_archived", code="slack.is_archived", access=True)
    assert [message["channel"] for message in slack.contents()] == ["alerts"]


async def test_a_bad_event_is_dead_and_its_neighbours_are_posted(slack: SlackMock) -> None:
    sink = await opened(by_token(slack), text="{{ event.note }}")
    notes = ["fine", "", "x" * 40_001, "\ud800", "good"]
    verdicts = await sink.write(Batch([*(event(number, note=note) for number, note in enumerate(notes)), event(9)]))
    await sink.close()
    assert [type(verdict) for verdict in verdicts] == [Ok, Dead, Dead, Dead, Ok, Dead]
    assert [verdict.code for verdict in verdicts if isinstance(verdict, Dead)] == [
        "slack.no_text",
        "slack.msg_too_long",
        "record.not_json",
        "template.failed",
    ]
    assert [message["text"] for message in slack.contents()] == ["fine", "good"]


@pytest.mark.parametrize("connect", [by_token, by_webhook])
async def test_a_failure_of_slack_gets_the_verdict_that_says_what_happened(slack: SlackMock, connect: Any) -> None:
    sink = await opened(connect(slack))

    async def after(kind: str) -> Any:
        slack.fail(1, kind)
        [verdict] = await sink.write(Batch([event()]))
        return verdict

    assert isinstance(await after("unavailable"), Retry)
    assert isinstance(await after("internal"), Unknown)
    assert isinstance(await after("garbage"), Unknown)
    assert isinstance(await after("reset"), Unknown)
    assert slack.contents() == []
    assert isinstance(await after("lost"), Unknown)
    assert len(slack.contents()) == 1
    with pytest.raises(FatalError):
        await after("denied")
    await sink.close()


async def test_two_deliveries_of_one_event_are_recognisable(slack: SlackMock) -> None:
    first = await opened(by_token(slack))
    slack.fail(1, "lost")
    assert isinstance((await first.write(Batch([event(5)])))[0], Unknown)
    await first.close()
    restarted = await opened(by_token(slack))
    assert isinstance((await restarted.write(Batch([event(5)], attempt=2)))[0], Ok)
    await restarted.close()
    keys = [message["metadata"]["event_payload"]["idempotency_key"] for message in slack.contents()]
    assert keys == ["idem-5", "idem-5"]
    assert not SlackSink.promises.idempotent


async def test_a_429_is_honoured_for_the_whole_channel() -> None:
    mock = SlackMock(SlackMockSettings(retry_after=1))
    await mock.start()
    sink = await opened(by_token(mock))
    loop = asyncio.get_running_loop()
    mock.fail(1, "throttled")
    assert await sink.write(Batch([event(1)])) == [Retry("Slack asks to slow down (429)", after=1.0)]
    start = loop.time()
    assert isinstance((await sink.write(Batch([event(2)])))[0], Ok)
    assert loop.time() - start >= 0.9
    await sink.close()
    await mock.stop()


async def test_a_wrong_token_is_found_at_the_start(slack: SlackMock) -> None:
    with pytest.raises(FatalError, match="invalid_auth") as caught:
        await opened(by_token(slack, "xoxb-not-this-one"))
    assert "not-this-one" not in str(caught.value)


async def test_slack_being_away_at_the_start_may_pass(slack: SlackMock) -> None:
    connection = by_token(slack)
    await slack.stop()
    with pytest.raises(RetriableError):
        await opened(connection)


async def test_slack_being_away_later_is_retried(slack: SlackMock) -> None:
    sink = await opened(by_webhook(slack))
    await slack.stop()
    [verdict] = await sink.write(Batch([event()]))
    await sink.close()
    assert isinstance(verdict, Retry)
    assert slack.webhook_url not in verdict.reason


async def test_a_webhook_that_is_gone_stops_the_pipeline_and_stays_secret(slack: SlackMock) -> None:
    url = slack.webhook_url + "gone"
    sink = await opened(by_webhook(slack, url))
    with pytest.raises(FatalError, match="no_service") as caught:
        await sink.write(Batch([event()]))
    await sink.close()
    assert url not in str(caught.value)


@pytest.mark.parametrize("url", ["not a url", "ftp://hooks.slack.com/x", "https://user:secret@hooks.slack.com/x"])
async def test_a_webhook_address_that_is_none_is_refused_without_showing_it(url: str) -> None:
    connection = SlackConnection(webhook_url=Secret.of(url))
    with pytest.raises(ConfigurationError, match="webhook_url") as caught:
        await opened(connection)
    assert url not in str(caught.value)


async def test_channel_and_connection_must_go_together(slack: SlackMock) -> None:
    with pytest.raises(ConfigurationError, match="its own channel"):
        await opened(by_webhook(slack), channel="#ops")
    with pytest.raises(ConfigurationError, match="must be named"):
        await opened(by_token(slack), channel=None)


async def test_loopback_is_refused_unless_the_connection_names_it(slack: SlackMock) -> None:
    sink = await opened(SlackConnection(webhook_url=Secret.of(slack.webhook_url)))
    with pytest.raises(FatalError, match="loopback"):
        await sink.write(Batch([event()]))
    await sink.close()
    assert slack.requests == []
