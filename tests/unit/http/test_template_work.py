"""What a template may do on one event: bounded in the characters and items that it reads and makes, whatever it is written like."""

from __future__ import annotations

from typing import Any

import pytest

from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.sandbox_meter import needs_meter
from trunkline.core.template import compile_template, parsed

LARGE: dict[str, Any] = {
    "text": "x" * 900_000,
    "same": "x" * 899_999 + "x",
    "list": list(range(20_000)),
    "map": {str(number): number for number in range(1000)},
    "lists": [[1]] * 50_000,
    "comments": "<!---->" * 100_000,
}
ROUNDS = "{% for i in range(9999) %}"


def rendered(text: str, value: Any = LARGE) -> str:
    return compile_template(text, "config.text").render(Event(value))


@pytest.mark.parametrize(
    "body",
    [
        "{% set x = event.text + 'a' %}",
        "{% set x = event.text ~ 'a' %}",
        "{% set x = event.text[1:] %}",
        "{% set x = [event.text[1:]] %}",
        "{% set x = event.text|upper %}",
        "{% set x = event.text|title %}",
        "{% set x = event.text|tojson %}",
        "{% set x = event.text|striptags %}",
        "{% set x = event.text|urlencode %}",
        "{% set x = event.text|wordcount %}",
        "{% set x = event.text.split('x') %}",
        "{% set x = event.text.replace('a', 'b') %}",
        "{% set x = event.list|sort %}",
        "{% set x = event.list|join(',') %}",
        "{% set x = event.list|sum %}",
        "{% set x = event.list|unique|list %}",
        "{% set x = event.list|map('string')|list %}",
        "{% set x = event.map.items()|list %}",
        "{% set x = range(100000)|sum %}",
        "{% set x = range(100000)|list %}",
        "{% if event.text == event.same %}{% endif %}",
        "{% if 'y' in event.text %}{% endif %}",
        "{% if -1 in event.list %}{% endif %}",
        "{% if -1 is in event.list %}{% endif %}",
        "{% if event.text is eq event.same %}{% endif %}",
        "{% if loop.changed(event.text + 'a') %}{% endif %}",
        "{% for j in range(9999) %}{% endfor %}",
        "{% set x = event.lists|map(attribute='0.1.2.3.4', default=1)|list %}",
    ],
)
def test_nothing_is_repeated_without_an_end(body: str) -> None:
    with pytest.raises(RejectedError, match=r"more than (5000000|100000|1048576)") as stopped:
        rendered(ROUNDS + body + "{% endfor %}")
    assert stopped.value.code == "template.failed"


@pytest.mark.parametrize(
    "text",
    [
        "{{ event.list|map('replace', '1', event.text)|list|length }}",
        "{{ event.list|select('in', event.list)|list|length }}",
        "{{ event.lists|selectattr('0', 'in', event.list)|list|length }}",
        "{{ range(100000)|map('string')|map('upper')|list|length }}",
        "{% set x = event.text|upper %}" * 400,
        "{% for a in range(2) %}" * 19 + "x" + "{% endfor %}" * 19,
        "{{ event.lists|sum(start=[]) }}",
        "{{ event.text.rfind('xy' + event.same) }}",
        "{{ event.text.rsplit('xy' + event.same) }}",
        "{{ event.text.strip(event.same) }}",
        "{{ event.text|trim(event.same) }}",
        "{{ ('f' * 1000000)|int(0, 16) }}",
    ],
)
def test_no_single_operation_takes_the_product_of_what_it_is_given(text: str) -> None:
    with pytest.raises(RejectedError) as stopped:
        rendered(text)
    assert stopped.value.code == "template.failed"
    assert len(str(stopped.value)) < 500


@pytest.mark.parametrize(
    "text",
    [
        "{{ event.list|map(attribute=PATH, default=1)|list|length }}",
        "{{ event.list|groupby(PATH, default=1)|length }}",
        "{{ event.list|groupby(attribute=PATH, default=1)|length }}",
        "{{ event.same|selectattr(PATH)|list|length }}",
        "{{ event.same|rejectattr(PATH, 'defined')|list|length }}",
        "{{ event.same|sort(attribute=PATH)|length }}",
        "{{ event.same|sort(false, false, PATH)|length }}",
        "{{ event.same|unique(false, PATH)|list|length }}",
        "{{ event.same|min(false, PATH)|length }}",
        "{{ event.same|max(attribute=PATH)|length }}",
    ],
)
@pytest.mark.parametrize(
    ("path", "said"),
    [(".".join("0" * 1000), "a path of fields has at most 200"), (".".join("0" * 50), "more than 100000 times")],
    ids=["long", "of many parts"],
)
def test_a_path_that_is_gone_for_each_item_is_bounded(text: str, path: str, said: str) -> None:
    # A character of a character is that character, so such a path is there in each.
    with pytest.raises(RejectedError, match=said):
        rendered(text.replace("PATH", f"'{path}'"))


def test_a_path_of_a_sum_is_bounded() -> None:
    with pytest.raises(RejectedError, match="a path of fields has at most 200"):
        rendered("{{ event.same|sum(PATH) }}".replace("PATH", f"'{'.'.join('0' * 1000)}'"))


def test_a_short_path_is_gone_for_each_item_of_a_long_list() -> None:
    orders = {"orders": [{"customer": {"name": "x", "no": number % 3}} for number in range(50_000)]}
    assert rendered("{{ event.orders|groupby('customer.no')|length }}", orders) == "3"
    assert rendered("{{ event.orders|map(attribute='customer.no')|sum }}", orders) == "49999"


class _Watched(dict[str, Any]):
    """A map that counts how often a name is looked for beside what it has."""

    asked = 0

    def __getattr__(self, name: str) -> Any:
        type(self).asked += 1
        raise AttributeError(name)


def test_a_long_name_that_a_map_lacks_is_no_method_of_it() -> None:
    watched = _Watched(a=1)
    text = "{% if event.map[event.name] is defined %}a{% else %}b{% endif %}{{ event.map[event.name]|default('c') }}"
    assert rendered(text, {"map": watched, "name": "x" * 900_000}) == "bc"
    assert watched.asked == 0
    assert rendered("{{ event.map[event.name] }}", {"map": {"x" * 900_000: "d"}, "name": "x" * 900_000}) == "d"


def test_constant_work_is_not_done_when_a_template_is_compiled() -> None:
    """Jinja folds what is constant; with a limit it is left to the rendering, which is bounded."""
    text = "{{ 'x'" + "|replace('x', 'xxxxxxxxxxxxxxxxxxxx')" * 60 + " }}"
    template = compile_template(text, "config.text")
    with pytest.raises(RejectedError, match="more than"):
        template.render(Event({}))


def test_what_people_write_is_far_from_the_limits() -> None:
    lines = [{"sku": f"A-{number}", "n": number, "note": "blue"} for number in range(1000)]
    text = (
        "{% for line in event.lines %}{{ loop.index }}/{{ event.lines|length }} {{ line.sku|lower }}: {{ line.n * 2 }}"
        "{% if line.note == event.note %} ({{ line.note|default('-') }}){% endif %}\n{% endfor %}"
    )
    assert rendered(text, {"lines": lines, "note": "blue"}).count("(blue)") == 1000
    assert rendered("{{ event.lines|map(attribute='sku')|join(',') }}", {"lines": lines}).startswith("A-0,A-1,")
    assert rendered("{{ event.comments|striptags }}") == ""
    assert rendered("{{ event.text|upper|lower|length }}") == "900000"


@pytest.mark.parametrize(
    "text",
    [
        "{{ event.carrier }}{{ event.flight }} is {{ event.minutes }} min late",
        "{% if event.a == 'b' and event.c > 3 %}{{ event.d|default('-')|upper }}{% else %}{{ event.e|tojson }}{% endif %}",
        "{{ event.lines|map(attribute='sku')|join(', ') }}",
    ],
)
def test_a_template_without_loops_is_not_counted_at_work(text: str) -> None:
    assert not needs_meter(parsed(text))


def test_a_template_that_is_too_deep_is_refused_where_it_is_written() -> None:
    with pytest.raises(ConfigurationError) as refused:
        compile_template("{% if event.a %}" * 300 + "{% endif %}" * 300, "config.text")
    assert (refused.value.code, refused.value.where) == ("template.invalid", "config.text")
