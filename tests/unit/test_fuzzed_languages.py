"""Whatever is written in our languages: a value, a refusal in words or an error of the record, at a bounded cost."""

from __future__ import annotations

from typing import Any

import pytest
from fuzzing import FUZZ, STEPS, is_short
from fuzzing_corpus import EXPRESSIONS, MANIFESTS, TEMPLATES
from hypothesis import given
from hypothesis import strategies as st

from tests.steps import bounded_steps
from trunkline.core.errors import ConfigurationError, RejectedError
from trunkline.core.event import Event
from trunkline.core.expressions import ExpressionError, compile_expression
from trunkline.core.manifests.check import examine
from trunkline.core.manifests.load import gather_text
from trunkline.core.template import compile_template
from trunkline.registry.schema import Schema

EVENT: dict[str, Any] = {
    "a": "text" * 50,
    "b": "x" * 5000,
    "n": 3,
    "d": 2.5,
    "l": list(range(300)),
    "s": ["x", "yy"] * 100,
    "m": {"k": {"k": [1, {"k": "v"}]}},
    "e": None,
}


def programs(words: list[str], joints: list[str]) -> st.SearchStrategy[str]:
    """Texts of a language's own words, some of them spoiled: most of them pass its parser."""
    word = st.sampled_from(words)
    tree = st.recursive(
        word,
        lambda inner: st.builds(
            lambda joint, parts: (
                joint.replace("§", "{}").format(*parts) if joint.count("§") == len(parts) else parts[0]
            ),
            st.sampled_from([joint.replace("{", "{{").replace("}", "}}") for joint in joints]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        max_leaves=25,
    )
    return tree | st.builds(
        lambda text, at, noise: text[:at] + noise + text[at:], tree, st.integers(0, 80), st.text(max_size=3)
    )


CEL = programs(
    [
        "event.a",
        "event.b",
        "event.n",
        "event.l",
        "event.s",
        "event.m",
        "event.m.k",
        "event.e",
        "event",
        "x",
        "y",
        "1",
        "1u",
        "2.5",
        "-7",
        "'t'",
        "b'\\xff'",
        "''",
        "[]",
        "{}",
        "[1, 2, 3]",
        "{'k': 1}",
        "null",
        "true",
        "'(a|b)+{2,9}'",
        "duration('1h')",
        "timestamp(0)",
        "'%s %d %.3f'",
    ],
    [
        "(§) + (§)",
        "§ == §",
        "§ in §",
        "§ && §",
        "§ || §",
        "!(§)",
        "§ ? § : §",
        "§[§]",
        "§.k",
        "§.size()",
        "size(§)",
        "§.map(x, §)",
        "§.filter(x, §)",
        "§.all(x, §)",
        "§.exists(x, §)",
        "§.exists_one(y, §)",
        "§.map(y, §, §)",
        "§.matches(§)",
        "§.contains(§)",
        "§.split(§)",
        "§.join(§)",
        "§.replace(§, §)",
        "§.format([§])",
        "§.lastIndexOf(§)",
        "§.substring(§)",
        "string(§)",
        "int(§)",
        "double(§)",
        "[§, §]",
        "{'k': §}",
        "§ * §",
        "§ / §",
        "§ % §",
        "§ < §",
        "-(§)",
        "has(§.k)",
        "§.getHours(§)",
        "math.greatest(§, §)",
        "type(§)",
        "§.reverse()",
    ],
)
JINJA = programs(
    [
        "{{ event.a }}",
        "{{ event.l }}",
        "{{ event.nothing }}",
        "{{ meta.id }}",
        "{{ headers }}",
        "text",
        "{% set v = event.l %}",
        "{{ v|length }}",
        "{{ range(1000)|list }}",
        "{{ 'x' * 1000 }}",
        "{{ event.l|join(',') }}",
        "{{ event.b|upper }}",
        "{{ 2 ** 60 }}",
        "{{ event.m|tojson }}",
    ],
    [
        "{% for x in event.l %}§{% endfor %}",
        "{% for x in range(400) %}§{% endfor %}",
        "{% if event.n > 2 %}§{% else %}§{% endif %}",
        "§§",
        "{% for x in event.s %}{% if x == event.a %}§{% endif %}{% endfor %}",
        "{% with v = event.b %}§{% endwith %}",
        "{{ event.a.replace('t', '§') }}",
        "{% for x in event.l|sort|reverse %}§{{ loop.index }}{% endfor %}",
        "{{ [event.b, event.l]|map('string')|join('§') }}",
        "{# § #}",
        "{% for x in event.b %}§{% endfor %}",
        "{{ (event.b ~ event.b)[§:] }}",
        "{{ event.s|map('replace', 'x', event.b)|list }}§",
    ],
)


@given(CEL)
@FUZZ
def test_an_expression_gives_a_value_or_an_error_of_the_record(text: str) -> None:
    _evaluated(text)


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_expressions_that_were_found(text: str) -> None:
    _evaluated(text)


def _evaluated(text: str) -> None:
    with bounded_steps(STEPS):
        try:
            compile_expression(text)(EVENT, Event(EVENT, raw_key=b"k", topic="t"))
        except (ConfigurationError, ExpressionError) as error:
            is_short(error)


@given(JINJA)
@FUZZ
def test_a_template_gives_a_text_or_an_error_of_the_record(text: str) -> None:
    _rendered(text)


@pytest.mark.parametrize("text", TEMPLATES)
def test_templates_that_were_found(text: str) -> None:
    _rendered(text)


def _rendered(text: str) -> None:
    with bounded_steps(STEPS):
        try:
            compile_template(text, "config.text").render(Event(EVENT, raw_key=b"k", topic="t"))
        except (ConfigurationError, RejectedError) as error:
            is_short(error)


HEAD = "apiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: a}\nspec:\n"
YAML = st.lists(
    st.sampled_from(
        [
            "a: ",
            "- ",
            "? ",
            "  ",
            "\n",
            "spec:",
            "schema: ",
            "{",
            "}",
            "[",
            "]",
            ", ",
            "&x ",
            "*x",
            "!!int ",
            "<<: ",
            "|\n",
            ">\n",
            "'",
            '"',
            "---\n",
            "...\n",
            "%YAML 1.1\n",
            "0x1f",
            "1:59:59",
            ".inf",
            "1e9",
            "9" * 60,
            "0o17",
            "017",
            "yes",
            "~",
            "2024-01-01",
            "#",
            "\t",
            "é",
            "\u2028",
            "\ufeff",
            "kind: Sink\n",
            "partitions: ",
            "config: ",
            "\\x41",
            "=",
            "@",
            "`",
        ]
    ),
    max_size=25,
).map("".join)


@given(YAML)
@FUZZ
def test_a_manifest_is_read_or_refused_with_its_line(text: str) -> None:
    _examined(HEAD + text)


@pytest.mark.parametrize("text", MANIFESTS)
def test_manifests_that_were_found(text: str) -> None:
    _examined(text)


def _examined(text: str) -> None:
    with bounded_steps(STEPS):
        found = examine(gather_text(text, "a.yaml"), schema_check=Schema)
    lines = text.count("\n") + 1
    for problem in found.problems:
        assert 1 <= problem.line <= lines
        is_short(problem)
