"""Text templates: what they write, and what they refuse."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest

from trunkline.core.envelope import Envelope, envelope_to_headers
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.template import compile_template

VALUE = {
    "name": 'O"Hara',
    "number": 7,
    "price": Decimal("1.50"),
    "at": datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC),
    "day": date(2024, 1, 2),
    "none": None,
    "yes": True,
    "raw": b"\x00\xff",
    "uid": UUID(int=1),
    "items": [1, "x", None],
    "map": {"b": 1, "get": 2},
}


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


ESCAPES = [
    "{{ ''.__class__ }}", "{{ ''['__class__'] }}", "{{ event.__class__.__mro__ }}", "{{ event | attr('__class__') }}",
    "{{ [].__class__.__base__.__subclasses__() }}", "{{ self.__init__.__globals__ }}", "{{ event.items.append(1) }}",
    "{{ event.map.update({}) }}", "{{ event.map.pop('b') }}", "{{ '{0.__class__}'.format(1) }}", "{{ '%s' % 1 }}",
    "{{ '{x}'.format_map({}) }}", "{{ event.at.__reduce__() }}", "{{ event.name.encode }}", "{{ range.__self__ }}",
    "{{ event.number.to_bytes(9, 'big') }}", "{{ lipsum() }}", "{{ cycler }}", "{{ joiner() }}", "{{ namespace() }}",
    "{{ config }}", "{{ self }}", "{{ loop }}", "{{ event.clear() }}", "{{ headers.__class__ }}", "{{ event.uid.bytes }}",
    "{{ dict(a=1) }}", "{{ event.price.__class__ }}", "{{ ''.join([]) }}", "{% for i in [1] %}{{ loop._iterator }}{% endfor %}",
]  # fmt: skip


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_outside_the_sandbox_is_reached(text: str) -> None:
    with pytest.raises((RejectedError, ConfigurationError)):
        rendered(text)
    assert VALUE["map"] == {"b": 1, "get": 2}


BOMBS = [
    "{{ 'a' * 10**9 }}", "{{ 10**9 * 'a' }}", "{{ [1] * 10**9 }}", "{{ 9**9**9 }}", "{{ 10**64 * 10**64 ** 64 }}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa' }}{% endfor %}",
    "{{ range(10**9) | list }}", "{{ 'x'.center(10**9) }}", "{{ 'x'.ljust(10**9) }}", "{{ 'x'.zfill(10**9) }}",
    "{{ 'x' | center(10**9) }}", "{{ 'x' | indent(10**9) }}", "{{ '%999999999d' % 1 }}", "{{ '{:>999999999}'.format(1) }}",
    "{{ event.at.strftime('%0999999999d') }}", "{{ ('a' * 9999).replace('a', 'a' * 9999) }}", "{{ 1.5 | round(10**9) }}",
    "{{ ('a' * 9999) | replace('a', 'a' * 9999) }}", "{{ (['a'] * 99999) | join('a' * 99999) }}",
    "{{ 'a'.expandtabs(10**9) }}",
    "{% set x = 'aaaaaaaaaaaaaaaa' %}" + "{% set x = x ~ x %}" * 40 + "{{ x }}",
    "{% set x = 'aaaaaaaaaaaaaaaa' %}" + "{% set x = x + x %}" * 40 + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
    "{% set x = [1] %}" + "{% set x = {'a': x, 'b': x} %}" * 60 + "{{ x == x }}",
    "{% set x = (1,) %}" + "{% set x = (x, x) %}" * 60 + "{{ x | string }}",
    "{% set x = 9 %}" + "{% set x = x * x %}" * 60 + "{{ x }}",
]  # fmt: skip


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
