"""How the Slack sink makes messages of events, and what Slack's answers mean."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from sinks.slack.answers import api_verdict, webhook_verdict
from sinks.slack.message import compiled
from sinks.slack.pace import Pace
from sinks.slack.settings import SlackConnection, SlackSettings
from trunkline.core.errors import FatalError, RejectedError
from trunkline.core.event import Event
from trunkline.core.http import HttpResponse
from trunkline.core.verdicts import Dead, Ok, Retry, Unknown


def response(status: int, body: Any, **headers: str) -> HttpResponse:
    content = body.encode() if isinstance(body, str) else orjson.dumps(body)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HttpResponse(status, named, content, request="POST https://slack.test/")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("<!channel>", "&lt;!channel&gt;"),
        ("<!here|here>", "&lt;!here|here&gt;"),
        ("<@U123>", "&lt;@U123&gt;"),
        ("<https://evil.test|bank>", "&lt;https://evil.test|bank&gt;"),
        ("R&D", "R&amp;D"),
        ("&lt;!channel&gt;", "&amp;lt;!channel&amp;gt;"),
        ({"a": ["<!everyone>"]}, '{"a":["&lt;!everyone&gt;"]}'),
    ],
)
def test_what_data_holds_is_shown_and_never_interpreted(value: Any, shown: str) -> None:
    assert compiled("{{ event.note }}", "text")(Event({"note": value})) == shown


def test_the_manifest_s_own_markup_stays_markup() -> None:
    render = compiled("<!here> {{ event.note }}", "text")
    assert render(Event({"note": "<b>"})) == "<!here> &lt;b&gt;"


def test_a_value_is_inserted_as_it_is_only_when_the_template_says_so() -> None:
    assert compiled("{{ event.note | verbatim }}", "text")(Event({"note": "<!here>"})) == "<!here>"


@pytest.mark.parametrize(
    "template", ["{{ event | tojson }}", "{{ event.note | upper | lower }}", "{{ '%s' ~ event.note }}"]
)
def test_no_filter_or_operator_lets_a_mention_through(template: str) -> None:
    assert "<" not in compiled(template, "text")(Event({"note": "<!channel>"}))


def test_blocks_are_rendered_at_any_depth_and_addresses_are_not_escaped() -> None:
    blocks = [
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "*{{ event.a }}*"}]},
        {
            "type": "actions",
            "elements": [{"type": "button", "url": "https://x.test/?a=1&b={{ event.n }}", "style": "danger"}],
        },
        {"type": "divider", "weight": 3, "open": True},
    ]
    rendered = compiled(blocks, "blocks")(Event({"a": "<x>", "n": 7}))
    assert rendered == [
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "*&lt;x&gt;*"}]},
        {"type": "actions", "elements": [{"type": "button", "url": "https://x.test/?a=1&b=7", "style": "danger"}]},
        {"type": "divider", "weight": 3, "open": True},
    ]


def test_a_field_that_the_event_lacks_is_that_event_s_error() -> None:
    with pytest.raises(RejectedError, match="blocks"):
        compiled([{"type": "{{ event.nothing.there }}"}], "blocks")(Event({"a": 1}))


@pytest.mark.parametrize(
    "escape",
    [
        "{{ event.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ event.get.__globals__ }}",
        "{{ (event | attr('__class__')) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ self._TemplateReference__context }}",
        "{{ '%s' % event }}",
        "{{ 'x' * 1000000000 }}",
        "{% for a in range(1000000) %}{% for b in range(1000000) %}x{% endfor %}{% endfor %}",
        "{% include '/etc/passwd' %}",
        "{{ lipsum() }}",
        "{{ namespace() }}",
    ],
)
def test_a_template_can_not_leave_its_sandbox(escape: str) -> None:
    try:
        settings = SlackSettings(channel="#ops", text=escape)
    except ValidationError:
        return
    with pytest.raises(RejectedError):
        compiled(settings.text, "text")(Event({"a": 1}))


def test_a_broken_template_is_refused_with_its_place() -> None:
    with pytest.raises(ValidationError, match=r"blocks\[0\]\.text\.text"):
        SlackSettings(channel="#ops", text="x", blocks=[{"type": "section", "text": {"text": "{{ event."}}])


def test_an_unknown_name_in_a_template_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(ValidationError, match="did you mean 'event'"):
        SlackSettings(channel="#ops", text="{{ evnt.a }}")


@pytest.mark.parametrize("given", [{}, {"token": "${env:A}", "webhook_url": "${env:B}"}])
def test_a_connection_has_either_a_token_or_a_webhook(given: dict[str, str]) -> None:
    with pytest.raises(ValidationError, match="either token or webhook_url"):
        SlackConnection.model_validate(given)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        ("ratelimited", Retry),
        ("rate_limited", Retry),
        ("service_unavailable", Retry),
        ("request_timeout", Retry),
        ("internal_error", Unknown),
        ("fatal_error", Unknown),
        ("msg_too_long", Dead),
        ("invalid_blocks", Dead),
        ("no_text", Dead),
        ("something_new", Dead),
    ],
)
def test_an_error_of_the_message_gets_its_verdict(error: str, expected: type[Any]) -> None:
    verdict = api_verdict(response(200, {"ok": False, "error": error}))
    assert isinstance(verdict, expected)
    if isinstance(verdict, Dead):
        assert verdict == Dead(f"Slack refused the message: {error}", code=f"slack.{error}", access=False)


@pytest.mark.parametrize(
    "error", ["channel_not_found", "not_in_channel", "is_archived", "restricted_action_read_only_channel"]
)
def test_a_refused_channel_may_be_our_fault_and_says_so(error: str) -> None:
    verdict = api_verdict(response(200, {"ok": False, "error": error}))
    assert isinstance(verdict, Dead)
    assert verdict.access


@pytest.mark.parametrize("error", ["invalid_auth", "token_revoked", "account_inactive", "not_authed", "missing_scope"])
def test_a_refused_token_stops_the_pipeline(error: str) -> None:
    with pytest.raises(FatalError, match=error):
        api_verdict(response(200, {"ok": False, "error": error, "needed": "chat:write"}))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, "ok", Ok()),
        (400, "invalid_payload", Dead("Slack refused the message: invalid_payload", code="slack.invalid_payload")),
        (400, "no_text", Dead("Slack refused the message: no_text", code="slack.no_text")),
        (
            410,
            "channel_is_archived",
            Dead("Slack refused the message: channel_is_archived", code="slack.channel_is_archived", access=True),
        ),
        (
            403,
            "action_prohibited",
            Dead("Slack refused the message: action_prohibited", code="slack.action_prohibited", access=True),
        ),
    ],
)
def test_a_webhook_s_plain_answer_gets_its_verdict(status: int, body: str, expected: Any) -> None:
    assert webhook_verdict(response(status, body)) == expected


@pytest.mark.parametrize(("status", "body"), [(404, "no_service"), (403, "invalid_token"), (404, "no_team")])
def test_a_webhook_that_was_taken_away_stops_the_pipeline(status: int, body: str) -> None:
    with pytest.raises(FatalError, match=body):
        webhook_verdict(response(status, body))


@pytest.mark.parametrize("judge", [api_verdict, webhook_verdict])
def test_the_status_decides_where_the_body_can_not(judge: Any) -> None:
    assert judge(response(429, "", Retry_After="7")) == Retry("Slack asks to slow down (429)", after=7.0)
    assert isinstance(judge(response(503, "<html>")), Retry)
    assert isinstance(judge(response(500, "rollup_error")), Unknown)
    assert isinstance(judge(response(502, "<html>")), Unknown)
    assert isinstance(judge(response(200, "<html>maintenance</html>")), Unknown)
    with pytest.raises(FatalError):
        judge(response(401, ""))


def test_messages_of_one_channel_are_spaced_and_other_channels_do_not_wait() -> None:
    pace = Pace(2.0)
    assert [pace.reserve("a", 100.0), pace.reserve("a", 100.5), pace.reserve("a", 101.0)] == [0.0, 1.5, 3.0]
    assert pace.reserve("b", 101.0) == 0.0
    assert pace.reserve("a", 200.0) == 0.0


def test_a_channel_that_slack_holds_back_waits_so_long() -> None:
    pace = Pace(1.0)
    pace.reserve("a", 100.0)
    pace.hold("a", 30.0, 100.0)
    pace.hold("a", 5.0, 100.0)
    assert pace.reserve("a", 110.0) == 20.0
    assert pace.reserve("a", 110.0) == 21.0


def test_pacing_remembers_only_so_many_channels() -> None:
    pace = Pace(60.0)
    for number in range(1001):
        pace.reserve(f"c{number}", 0.0)
    assert pace.reserve("c0", 0.0) == 0.0
    assert pace.reserve("c1000", 0.0) == 60.0
