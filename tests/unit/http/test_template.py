"""Text templates: what they write, and what they refuse."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hostile_templates import BOMBS, ESCAPES, VALUE

from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.template import compile_template


def event(value: Any = VALUE) -> Event:
    headers = envelope_to_headers(Envelope("e-1", "/s", "t", correlation_id="c-1"))
    return Event(value, headers=headers, raw_key=b"k-1")


def rendered(text: str, **more: Any) -> str:
    return compile_template(text, "spec.text", **more).render(event())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain {text}", "plain {text}"),
        ("{{ event.name }} {{ event['number'] }}", 'O"Hara 7'),
        ("{{ event.price }}|{{ event.none }}|{{ event.yes }}", "1.50||true"),
        ("{{ event.at }} {{ event.day }} {{ event.at.year }}", "2024-01-02T03:04:05Z 2024-01-02 2024"),
        ("{{ event.at.strftime('%d.%m.') }}", "02.01."),
        ("{{ event.raw }} {{ event.uid }}", "AP8= 00000000-0000-0000-0000-000000000001"),
        ("{{ event.items }} {{ event.map }}", '[1,"x",null] {"b":1,"get":2}'),
        ("{{ event.map.get }} {{ event.map | length }}", "2 2"),
        ("{{ event | tojson | length > 10 }}", "true"),
        ("{{ meta.id }} {{ meta.correlation_id }} {{ key }} {{ headers.ce_type }}", "e-1 c-1 k-1 t"),
        ("{% for k, v in event.map | dictsort %}{{ k }}={{ v }};{% endfor %}", "b=1;get=2;"),
        ("{% if event.number > 5 %}big{% else %}small{% endif %}", "big"),
        ("{{ event.nope | default('-') }}{{ 'x' if event.nope is defined }}", "-"),
        ("{% set a = event.number + 1 %}{{ a * 2 }} {{ 7 // 2 }} {{ 2 ** 10 }}", "16 3 1024"),
        ("{{ event.name | upper | replace('\"', '-') }} {{ [1, 2] | join('+') }}", "O-HARA 1+2"),
        ("{{ 2.567 | round(1) }} {{ event.name ~ '/' ~ event.number }}", '2.6 O"Hara/7'),
        ("a\n", "a\n"),
    ],
)
def test_values_are_written_as_json_writes_them_without_quotes(text: str, expected: str) -> None:
    assert rendered(text) == expected


def test_a_template_without_expressions_is_constant() -> None:
    assert compile_template("just text", "x").constant == "just text"
    assert compile_template("{{ key }}", "x").constant is None
    assert compile_template("{% if key %}{% endif %}", "x").constant is None


def test_an_escape_is_applied_to_values_and_not_to_the_text_around() -> None:
    text = "/a/{{ event.name }}/{{ 'x/y' | verbatim }}?q={{ event.items }}"
    assert rendered(text, escape=lambda value: quote(value, safe="")) == "/a/O%22Hara/x/y?q=%5B1%2C%22x%22%2Cnull%5D"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ event.nope }}", "nope"),
        ("{{ event.name.nope }}", "nope"),
        ("{{ event.number + event.name }}", "unsupported operand"),
        ("{{ event.number / 0 }}", "division"),
        ("{{ event.none.x }}", "None"),
    ],
)
def test_what_an_event_lacks_is_that_events_error(text: str, found: str) -> None:
    with pytest.raises(RejectedError, match=found) as caught:
        rendered(text)
    assert caught.value.where == "spec.text"
    assert caught.value.code == "template.failed"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ evnt.x }}", "did you mean 'event'"),
        ("{{ event.x", "line 1: unexpected end of template"),
        ("a\n{% nope %}", "line 2: Encountered unknown tag 'nope'"),
        ("{{ event | nope }}", "No filter named 'nope'"),
        ("{% include 'x' %}", "include is not allowed"),
        ("{% import 'x' as x %}", "import is not allowed"),
        ("{% extends 'x' %}", "extends is not allowed"),
        ("{% macro m() %}{% endmacro %}", "macro is not allowed"),
        ("{% set x %}a{% endset %}", "assignblock is not allowed"),
        ("{% for a in event recursive %}{{ loop(a) }}{% endfor %}", "recursive loop"),
        ("x" * 70_000, "at most"),
        ("{{ " + "(" * 5_000 + "1" + ")" * 5_000 + " }}", "can't be compiled"),
    ],
)
def test_a_template_that_can_not_work_is_refused_with_its_place(text: str, found: str) -> None:
    with pytest.raises(ConfigurationError, match=found) as caught:
        compile_template(text, "spec.config.text")
    assert caught.value.where == "spec.config.text"


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_outside_the_sandbox_is_reached(text: str) -> None:
    with pytest.raises((RejectedError, ConfigurationError)):
        rendered(text)
    assert VALUE["map"] == {"b": 1, "get": 2}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("text", BOMBS)
def test_a_template_that_would_grow_without_bound_is_stopped(text: str) -> None:
    with pytest.raises((RejectedError, ConfigurationError)):
        rendered(text)


def test_a_template_may_be_given_names_of_its_own() -> None:
    template = compile_template("since {{ cursor }}", "x", names=("cursor",))
    assert template.render_with({"cursor": 5}) == "since 5"
    with pytest.raises(ConfigurationError, match="known: cursor"):
        compile_template("{{ event.x }}", "x", names=("cursor",))
