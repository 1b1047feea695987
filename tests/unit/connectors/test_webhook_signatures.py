"""Who is believed: each provider's own signature, in its window, with any of the accepted secrets, and nothing else."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook
from webhook_requests import (
    GENERIC,
    NOW,
    SECRET,
    WHSEC,
    generic,
    github,
    hex_mac,
    mutated,
    plain_headers,
    post,
    slack,
    source,
    standard,
    stripe,
)

from connectors.webhook.settings import WebhookSettings
from trunkline.core.contracts import Request
from trunkline.core.errors import ConfigurationError

BODY = b'{"id": "evt_1", "type": "thing.made", "n": 1}'
Signed = Callable[..., Request]
TIMED: list[tuple[str, Signed, str]] = [
    ("slack", slack, SECRET),
    ("stripe", stripe, SECRET),
    ("standard_webhooks", standard, WHSEC),
]


@pytest.mark.parametrize(
    ("verify", "request_of"),
    [
        ({"provider": "github", "secrets": [SECRET]}, github),
        ({"provider": "gitlab", "secrets": [SECRET]}, lambda body: post(body, {"X-Gitlab-Token": SECRET})),
        ({"provider": "slack", "secrets": [SECRET]}, slack),
        ({"provider": "stripe", "secrets": [SECRET]}, stripe),
        ({"provider": "standard_webhooks", "secrets": [WHSEC]}, standard),
        ({**GENERIC, "secrets": [SECRET]}, generic),
        (
            {"provider": "basic", "username": "u", "secrets": [SECRET]},
            lambda body: post(body, {"Authorization": "Basic " + base64.b64encode(f"u:{SECRET}".encode()).decode()}),
        ),
        (
            {"provider": "api_key", "header": "Authorization", "prefix": "Bearer ", "secrets": [SECRET]},
            lambda body: post(body, {"Authorization": f"Bearer {SECRET}"}),
        ),
    ],
)
async def test_a_good_proof_is_accepted_one_by_another_secret_is_not_and_rotation_takes_both(
    verify: dict[str, Any], request_of: Signed
) -> None:
    request = request_of(BODY)
    assert (await (await source(verify)).receive(request)).status == 202
    other = WHSEC[:-4] + "AAAA" if verify["provider"] == "standard_webhooks" else SECRET + "!"
    refused = await (await source({**verify, "secrets": [other]})).receive(request)
    assert (refused.status, refused.events, refused.rejected, refused.dedupe_key) == (401, (), (), None)
    assert (await (await source({**verify, "secrets": [other, verify["secrets"][0]]})).receive(request)).status == 202


def test_the_vector_on_githubs_own_page_holds() -> None:
    # https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries ("Testing the webhook payload validation")
    expected = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    assert hex_mac("It's a Secret to Everybody", b"Hello, World!") == expected


async def test_the_vector_on_githubs_own_page_is_accepted() -> None:
    door = await source({"provider": "github", "secrets": ["It's a Secret to Everybody"]}, payload="document")
    signature = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
    answer = await door.receive(
        post(b"Hello, World!", {"X-Hub-Signature-256": signature, "Content-Type": "text/plain"})
    )
    assert answer.events[0].value["body"] == "Hello, World!"


async def test_the_example_on_slacks_own_page_is_accepted() -> None:
    # https://docs.slack.dev/authentication/verifying-requests-from-slack
    body = (
        b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
        b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
        b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN"
        b"&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
    )
    headers = {
        "X-Slack-Signature": "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        "X-Slack-Request-Timestamp": "1531420618",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    door = await source({"provider": "slack", "secrets": ["8f742231b10e8888abcd99yyyzzz85a5"]}, now=1531420618)
    answer = await door.receive(post(body, headers))
    assert answer.status == 200
    assert answer.events[0].value["command"] == "/webhook-collect"


async def test_what_the_standard_webhooks_package_signs_is_accepted_and_what_we_take_it_takes() -> None:
    stamp = datetime.fromtimestamp(NOW, UTC)
    signature = Webhook(WHSEC).sign("msg_9", stamp, BODY.decode())
    headers = {"webhook-id": "msg_9", "webhook-timestamp": str(NOW), "webhook-signature": f"v1,{'A' * 44} {signature}"}
    answer = await (await source({"provider": "standard_webhooks", "secrets": [WHSEC]})).receive(post(BODY, headers))
    assert (answer.status, answer.dedupe_key) == (202, "standard_webhooks:msg_9")
    now = int(datetime.now(UTC).timestamp())
    assert Webhook(WHSEC).verify(BODY, dict(standard(BODY, now).headers))["id"] == "evt_1"


async def test_several_stripe_signatures_are_tried_while_a_secret_is_rolled() -> None:
    good = stripe(BODY)
    rolled = good.headers["stripe-signature"].replace("v1=", f"v1={'0' * 64},v1=")
    request = replace(good, headers={**good.headers, "stripe-signature": rolled})
    assert (await (await source({"provider": "stripe", "secrets": [SECRET]})).receive(request)).status == 202


@pytest.mark.parametrize(("provider", "signed", "secret"), [*TIMED, ("hmac", generic, SECRET)])
@pytest.mark.parametrize(("age", "status"), [(0, 202), (300, 202), (-300, 202), (301, 401), (-301, 401), (10**9, 401)])
async def test_a_signed_timestamp_is_good_for_five_minutes_either_way(
    provider: str, signed: Signed, secret: str, age: int, status: int
) -> None:
    verify = GENERIC if provider == "hmac" else {"provider": provider}
    answer = await (await source({**verify, "secrets": [secret]})).receive(signed(BODY, NOW - age))
    assert answer.status == status


async def test_a_refusal_does_not_tell_a_forger_what_was_wrong() -> None:
    door = await source({"provider": "slack", "secrets": [SECRET]})
    stale, forged = await door.receive(slack(BODY, NOW - 301)), await door.receive(slack(BODY, secret="other"))
    absent = await door.receive(post(BODY))
    assert stale == forged == absent
    assert SECRET not in str(stale)


async def test_of_500_forged_or_mutated_requests_none_is_accepted() -> None:
    seed = 20_260_101
    random_ = random.Random(seed)
    cases: list[tuple[dict[str, Any], Callable[[], Request]]] = [
        ({"provider": "github", "secrets": [SECRET]}, lambda: github(BODY)),
        ({"provider": "slack", "secrets": [SECRET]}, lambda: slack(BODY)),
        (
            {"provider": "standard_webhooks", "secrets": [WHSEC]},
            lambda: replace(standard(BODY), headers=plain_headers(standard(BODY))),
        ),
        (
            {"provider": "stripe", "secrets": [SECRET]},
            lambda: replace(stripe(BODY), headers=plain_headers(stripe(BODY))),
        ),
        ({**GENERIC, "secrets": [SECRET]}, lambda: generic(BODY)),
    ]
    doors = [(await source(verify), request_of) for verify, request_of in cases]
    tried = 0
    while tried < 500:
        door, request_of = doors[tried % len(doors)]
        good = request_of()
        request = mutated(random_, good)
        if request == good:
            continue
        answer = await door.receive(request)
        assert answer.status == 401, (seed, tried, request)
        assert not answer.events
        tried += 1


async def test_a_message_id_with_a_full_stop_is_refused_because_it_blurs_where_the_timestamp_begins() -> None:
    door = await source({"provider": "standard_webhooks", "secrets": [WHSEC]})
    assert (await door.receive(standard(BODY, message_id="msg"))).status == 202
    assert (await door.receive(standard(BODY, message_id=f"msg.{NOW}"))).status == 401


@pytest.mark.parametrize(
    "given", ["Basic", "Basic !!!", "Bearer x", "Basic dTp3cm9uZw==", "basic " + base64.b64encode(b"u").decode()]
)
async def test_bad_basic_credentials_are_refused_with_a_challenge(given: str) -> None:
    door = await source({"provider": "basic", "username": "u", "secrets": [SECRET]})
    answer = await door.receive(post(BODY, {"Authorization": given}))
    assert answer.status == 401
    assert answer.headers["WWW-Authenticate"].startswith("Basic ")


async def test_whoever_comes_is_taken_only_where_the_manifest_says_so() -> None:
    assert (await (await source({"provider": "none"})).receive(post(BODY))).status == 202
    with pytest.raises(ValidationError, match="verify"):
        WebhookSettings.model_validate({"path": "/hooks/x"})


@pytest.mark.parametrize(
    ("verify", "reason"),
    [
        ({"provider": "github", "secrets": [""]}, "empty"),
        ({"provider": "standard_webhooks", "secrets": ["whsec_not base64!"]}, "encoding"),
        ({"provider": "hmac", "header": "X-S", "key_encoding": "hex", "secrets": ["geheimnis"]}, "encoding"),
    ],
)
async def test_a_secret_that_can_not_be_used_is_said_at_the_start_without_showing_it(
    verify: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        await source(verify)
    assert not verify["secrets"][0] or verify["secrets"][0] not in str(caught.value)


@pytest.mark.parametrize(
    "verify",
    [
        {"provider": "github"},
        {"provider": "github", "secrets": []},
        {"provider": "github", "secrets": ["plain text in git"]},
        {"provider": "hmac", "secrets": ["${env:S}"], "header": "X-S", "signed": "{timestamp}"},
        {"provider": "hmac", "secrets": ["${env:S}"], "header": "X-S", "signed": "{timestamp}.{body}"},
        {"provider": "hmac", "secrets": ["${env:S}"], "header": "X-S", "timestamp_header": "X-T"},
        {"provider": "hmac", "secrets": ["${env:S}"], "header": "X-S", "signed": "{url}{body}"},
        {"provider": "hmac", "secrets": ["${env:S}"], "header": "X S"},
        {"provider": "carrier_pigeon"},
    ],
)
def test_settings_that_would_not_protect_are_refused(verify: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WebhookSettings.model_validate({"path": "/hooks/x", "verify": verify})
