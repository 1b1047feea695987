"""What becomes of a request that is believed: events, quarantine, challenges, and what is refused for its size."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from webhook_requests import NOW, SECRET, github, hex_mac, post, slack, source, stripe

from connectors.webhook.bodies import TooMuchError, UnreadableError, read_json
from connectors.webhook.settings import WebhookSettings

SCHEMAS = Path(__file__).parents[3] / "schemas"
DELIVERIES = Path(__file__).parents[4] / "shared/data/github-webhooks.jsonl.gz"
GITHUB = {"provider": "github", "secrets": [SECRET]}
OPEN = {"provider": "none"}
FORM = "application/x-www-form-urlencoded"


async def test_every_kind_of_github_delivery_is_accepted_with_its_type() -> None:
    if not DELIVERIES.exists():
        pytest.skip("the GitHub deliveries are not on this machine")
    door = await source(GITHUB)
    count = 0
    ids: dict[bytes, str | None] = {}
    with gzip.open(DELIVERIES, "rt", encoding="utf-8") as lines:
        for line in lines:
            delivery = json.loads(line)
            payload = delivery["payload"]
            body = json.dumps(payload).encode()
            answer = await door.receive(github(body, delivery["event"]))
            assert (answer.status, len(answer.events)) == (202, 1)
            [event] = answer.events
            assert event.value == payload
            assert event.type == f"github.{delivery['event']}"
            if isinstance(payload.get("repository"), dict) and "full_name" in payload["repository"]:
                assert event.subject == event.key == payload["repository"]["full_name"]
            assert answer.dedupe_window == 24 * 3600
            ids[body] = event.id
            count += 1
    assert count == 329
    assert len(set(ids.values())) == len(ids)


async def test_a_repeat_is_known_by_the_body_because_github_does_not_sign_the_delivery_id() -> None:
    door = await source(GITHUB)
    first = await door.receive(github(b'{"a": 1}'))
    again = await door.receive(github(b'{"a": 1}', **{"X-GitHub-Delivery": "d-2", "X-GitHub-Event": "star"}))
    other = await door.receive(github(b'{"a": 2}'))
    assert first.dedupe_key == again.dedupe_key != other.dedupe_key
    assert first.events[0].id == again.events[0].id != other.events[0].id


async def test_a_github_form_gives_the_json_inside_it() -> None:
    body = urlencode({"payload": '{"zen": "ä & b"}'}).encode()
    answer = await (await source(GITHUB)).receive(github(body, "ping", **{"Content-Type": FORM}))
    assert answer.events[0].value == {"zen": "ä & b"}


async def test_gitlab_tells_its_kind_in_the_body_and_repeats_by_its_idempotency_key() -> None:
    door = await source({"provider": "gitlab", "secrets": [SECRET]})
    body = b'{"object_kind": "merge_request", "project": {"path_with_namespace": "a/b"}}'
    headers = {"X-Gitlab-Token": SECRET, "X-Gitlab-Event": "Merge Request Hook", "X-Gitlab-Event-UUID": "shared"}
    keyed = await door.receive(post(body, {**headers, "Idempotency-Key": "k-1"}))
    assert (keyed.events[0].type, keyed.events[0].subject) == ("gitlab.merge_request", "a/b")
    assert keyed.dedupe_key == "gitlab:k-1"
    plain = await door.receive(post(body, headers))
    assert plain.dedupe_key is not None
    assert plain.dedupe_key.startswith("gitlab:sha256:")


async def test_slacks_challenge_is_answered_and_makes_no_event() -> None:
    door = await source({"provider": "slack", "secrets": [SECRET]})
    answer = await door.receive(slack(b'{"type": "url_verification", "challenge": "3eZb"}'))
    assert (answer.status, answer.reply, answer.events) == (200, b"3eZb", ())
    forged = await door.receive(slack(b'{"type": "url_verification", "challenge": "3eZb"}', secret="no"))
    assert (forged.status, forged.reply) == (401, None)


async def test_slack_events_commands_and_interactions_are_told_apart() -> None:
    door = await source({"provider": "slack", "secrets": [SECRET]})
    event = b'{"type": "event_callback", "event_id": "Ev1", "event_time": 1700000000, "event": {"type": "message", "channel": "C1"}}'
    answer = await door.receive(slack(event))
    [found] = answer.events
    assert (answer.status, answer.dedupe_key) == (202, "slack:Ev1")
    assert (found.type, found.subject, found.id, found.time is not None) == ("slack.message", "C1", "Ev1", True)
    command = await door.receive(slack(b"command=%2Fdo&channel_id=C2&text=a&text=b", content_type=FORM))
    assert (command.status, command.reply) == (200, b"")  # Slack shows any other answer to the user
    assert command.events[0].value == {"command": "/do", "channel_id": "C2", "text": ["a", "b"]}
    clicked = urlencode({"payload": '{"type": "block_actions", "channel": {"id": "C3"}}'}).encode()
    action = await door.receive(slack(clicked, content_type=FORM))
    assert (action.events[0].type, action.events[0].subject, action.status) == ("slack.block_actions", "C3", 200)


async def test_a_stripe_event_is_known_by_its_id_inside_the_signed_body() -> None:
    door = await source({"provider": "stripe", "secrets": [SECRET]})
    body = b'{"id": "evt_7", "type": "charge.paid", "created": 1700000000, "data": {"object": {"id": "ch_1"}}}'
    first, retried = await door.receive(stripe(body)), await door.receive(stripe(body, NOW + 60))
    assert first.dedupe_key == retried.dedupe_key == "stripe:evt_7"
    [event] = first.events
    assert (event.id, event.type, event.subject) == ("evt_7", "stripe.charge.paid", "ch_1")


async def test_where_repeats_are_not_recognised_equal_bodies_are_different_events() -> None:
    answer = await (await source(OPEN)).receive(post(b'{"t": 20}'))
    assert (answer.dedupe_key, answer.events[0].id) == (None, None)
    keyed = await source({"provider": "none", "id_header": "Idempotency-Key", "dedupe_window": "1h"})
    answer = await keyed.receive(post(b'{"t": 20}', {"Idempotency-Key": "k"}))
    assert (answer.dedupe_key, answer.dedupe_window, answer.events[0].id) == ("none:k", 3600, "k")


async def test_kind_subject_and_id_come_from_where_the_manifest_says() -> None:
    door = await source(
        OPEN, kind_field="meta.type", subject_field="order.id", id_field="meta.id", correlation_field="meta.c"
    )
    body = {"meta": {"type": "order made!", "id": "o-1", "c": "corr-1"}, "order": {"id": 7}}
    [event] = (await door.receive(post(json.dumps(body).encode(), {"X-Correlation-ID": "other"}))).events
    assert (event.type, event.subject, event.id, event.correlation_id) == ("webhook.order_made_", "7", "o-1", "corr-1")


async def test_the_correlation_id_and_trace_that_come_in_are_kept() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    [event] = (await (await source(OPEN)).receive(post(b"{}", {"X-Request-ID": "r-1", "traceparent": trace}))).events
    assert (event.correlation_id, event.traceparent) == ("r-1", trace)
    [event] = (await (await source(OPEN)).receive(post(b"{}", {"traceparent": "nonsense"}))).events
    assert (event.correlation_id, event.traceparent) == (None, None)


async def test_a_list_in_the_body_becomes_one_event_for_each_item() -> None:
    door = await source(GITHUB, items="data.rows", id_field="n")
    answer = await door.receive(github(b'{"data": {"rows": [{"n": 1}, 5, {"m": 99999999999999999999}]}}'))
    assert [event.value for event in answer.events] == [{"n": 1}, {"m": 99999999999999999999}]
    first, last = [event.id for event in answer.events]
    assert first == "1"
    assert last is not None
    assert last.endswith(".2")
    assert [bad.raw for bad in answer.rejected] == [b"5"]
    whole = await (await source(OPEN, items="$")).receive(post(b'[{"a": 1}, {"a": 2}]'))
    assert [event.value["a"] for event in whole.events] == [1, 2]


@pytest.mark.parametrize(
    ("body", "content_type", "reason"),
    [
        (b"{", "application/json", "no JSON"),
        (b"", "application/json", "no JSON"),
        (b'{"a": 1, "a": 2}', "application/json", "twice"),
        (b'{"a": {"b": 1, "b": 1}}', "application/json", "twice"),
        (b'{"a": NaN}', "application/json", "NaN"),
        (b'{"a": 1e999}', "application/json", "too large"),
        (b'{"a": ' + b"9" * 5000 + b"}", "application/json", "digits"),
        (b'{"a": "\\ud800"}', "application/json", "surrogate"),
        (b'{"a": "\xff"}', "application/json", "utf-8"),
        (b"{}", "application/json; charset=utf-7", "charset"),
        (b"[1]", "application/json", "a list"),
        (b"7", "application/json", "a number"),
        (b"<a/>", "application/xml", "nothing"),
        (b"a=%ff", FORM, "UTF-8"),
    ],
)
async def test_what_a_known_sender_sends_that_can_not_be_read_is_kept_and_answered_202(
    body: bytes, content_type: str, reason: str
) -> None:
    answer = await (await source(GITHUB)).receive(github(body, **{"Content-Type": content_type, "X-Request-ID": "r"}))
    assert (answer.status, answer.events) == (202, ())
    [bad] = answer.rejected
    assert bad.raw == body
    assert reason in bad.reason
    assert "delivery d-1" in bad.place
    assert bad.correlation_id == "r"
    assert answer.dedupe_key is not None


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 65 + b"]" * 65,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" + b"0," * 250_000 + b"0]",
        b"{" + b",".join(b'"%d":0' % number for number in range(250_000)) + b"}",
    ],
)
async def test_a_bomb_is_refused_and_not_kept(body: bytes) -> None:
    answer = await (await source(OPEN, max_body="8 MiB")).receive(post(body))
    assert (answer.status, answer.events, answer.rejected) == (413, (), ())


async def test_a_form_of_too_many_fields_and_a_body_over_the_limit_are_refused() -> None:
    door = await source(OPEN, max_body=10_000)
    assert (await door.receive(post(b"&".join([b"a=1"] * 1001), {"Content-Type": FORM}))).status == 413
    assert (await door.receive(post(b"x" * 10_001))).status == 413


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
async def test_only_post_is_taken(method: str) -> None:
    answer = await (await source(OPEN)).receive(post(b"{}", method=method))
    assert (answer.status, answer.headers["Allow"]) == (405, "POST")


async def test_a_document_is_the_body_as_it_came_and_fits_the_built_in_schema() -> None:
    door = await source(GITHUB, payload="document")
    assert door.default_schema is not None
    assert (await source(GITHUB)).default_schema is None
    body = b'{ "zen":\t"\xc3\xa4" }'
    [event] = (await door.receive(github(body, "ping"))).events
    assert event.value == {"kind": "ping", "id": "d-1", "body": body.decode()}
    schema = json.loads((SCHEMAS / door.default_schema).read_text())
    fastavro.schemaless_writer(io.BytesIO(), schema, event.value, strict=True)
    [text] = (await door.receive(github(b"<a/>", **{"Content-Type": "text/xml"}))).events
    assert text.value["body"] == "<a/>"


async def test_parts_of_a_document_can_not_be_asked_for() -> None:
    with pytest.raises(ValidationError, match="items"):
        WebhookSettings.model_validate({"path": "/x", "verify": OPEN, "payload": "document", "items": "a"})


LEAVES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(LEAVES | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))


@given(JSON)
def test_plain_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    text = json.dumps(value)
    assert read_json(text, max_depth=64, max_elements=100_000) == json.loads(text)


@given(st.text(st.sampled_from('{}[]",:\\u1aD8 0.eE-'), max_size=60))
def test_no_text_whatsoever_breaks_the_reader(text: str) -> None:
    try:
        value = read_json(text, max_depth=4, max_elements=10)
    except (UnreadableError, TooMuchError):
        return
    assert value == json.loads(text)


@given(
    st.dictionaries(st.sampled_from(["content-type", "x-hub-signature-256", "x-request-id", "traceparent"]), st.text()),
    st.binary(),
)
async def test_no_request_whatsoever_raises(headers: dict[str, str], body: bytes) -> None:
    for verify in (GITHUB, OPEN):
        answer = await (await source(verify)).receive(post(body, headers))
        assert answer.status in (202, 401, 413)


async def test_equal_bodies_to_different_doors_are_counted_apart_by_kind_of_proof() -> None:
    keys = Counter(
        [
            (await (await source(GITHUB)).receive(github(b"{}"))).dedupe_key,
            (
                await (await source({"provider": "hmac", "header": "X-S", "secrets": [SECRET]})).receive(
                    post(b"{}", {"X-S": hex_mac(SECRET, b"{}")})
                )
            ).dedupe_key,
        ]
    )
    assert len(keys) == 2
