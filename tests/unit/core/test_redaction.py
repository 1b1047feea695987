"""Redaction: no secret is left in a text, however it is written there, and no ordinary word is lost."""

from __future__ import annotations

import base64
import json
import sys
from types import ModuleType
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.core.encodings_of_secrets import ENCODINGS, canaries, remains
from trunkline.core import redaction
from trunkline.core.cause import Cause
from trunkline.core.contracts import Reception, RejectedInput
from trunkline.core.encodings import folded
from trunkline.core.errors import ConfigurationError, code_from
from trunkline.core.manifests.problems import Problem
from trunkline.core.redaction import ISSUED, MARK, Redactor, excerpt, learn, redact, redact_all
from trunkline.core.verdicts import Dead, Retry, Unknown

CANARIES = canaries()
BEFORE, AFTER = "the pipeline failed with: ", " and will go on; 5 records wait"


@pytest.fixture(scope="module")
def knowing() -> Redactor:
    """A redactor that knows all canaries."""
    made = Redactor()
    for secret in CANARIES:
        made.learn(secret)
    return made


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_secret_is_left_whatever_it_is_encoded_in(knowing: Redactor, encoding: str) -> None:
    assert len(CANARIES) == 60
    for secret in CANARIES:
        text = f"{BEFORE}{ENCODINGS[encoding](secret)}{AFTER}"
        shown = knowing.redact(text)
        assert MARK in shown, (encoding, secret)
        assert not remains(secret, shown), (encoding, secret, shown)
        assert (shown.startswith(BEFORE), shown.endswith(AFTER)) == (True, True), (encoding, secret, shown)


@settings(max_examples=50)
@given(st.text(min_size=6, max_size=40), st.sampled_from(sorted(ENCODINGS)))
def test_any_text_of_six_signs_may_be_a_secret(secret: str, encoding: str) -> None:
    if len(folded(secret.encode("utf-8", "surrogatepass"))) < 6 or any("\ud800" <= sign <= "\udfff" for sign in secret):
        return
    made = Redactor()
    made.learn(secret)
    assert secret.strip() not in made.redact(f"a {ENCODINGS[encoding](secret)} b")


@pytest.mark.parametrize("secret", ["q'7", 'zt"7', 'it\'s "q" and more', "three\"\"quotes''"])
def test_quotes_may_be_doubled_again_and_the_whole_be_encoded(secret: str) -> None:
    redactor = Redactor()
    redactor.learn(secret)
    line = '"' + secret.replace('"', '""') + '"\r\n'
    twice = '"' + line.replace('"', '""') + '"'
    value = "'" + secret.replace("'", "''") + "'"
    encoded = base64.b64encode(line.encode()).decode()
    for text in (line, twice, value, json.dumps(line), quote(line), repr(ValueError(value)), encoded):
        shown = redactor.redact(f"before {text} after")
        assert MARK in shown, text
        assert remains(secret, shown) == [], text


def test_the_longer_of_two_secrets_is_blanked_whole() -> None:
    made = Redactor()
    made.learn("abcdef")
    made.learn("abcdefghij")
    made.learn("ghijklmnop")
    assert made.redact("x abcdefghij y abcdef z") == "x ******** y ******** z"
    assert made.redact("abcdefghijklmnop") == MARK


def test_a_short_secret_blanks_no_ordinary_word() -> None:
    made = Redactor()
    for secret in ("ope", "a1", "no!"):
        made.learn(secret)
    text = "the operator opens no door; a12 ba1 opera"
    assert made.redact(text) is text
    assert made.redact('ope, "ope" a1:ope no! (a1)') == f'{MARK}, "{MARK}" {MARK}:{MARK} {MARK} ({MARK})'


def test_a_text_without_secrets_comes_back_as_it_is(knowing: Redactor) -> None:
    for text in ("", "plain", "escaped \\n %41 &amp; \\u00e9", "\ud800 broken", "日本"):
        assert knowing.redact(text) is text


def test_what_of_an_address_nobody_can_guess_is_a_secret_and_its_plain_words_are_not() -> None:
    made = Redactor()
    made.learn("https://hooks.slack.com/services/T0AB12CD3/B0EF45GH6/abcdefghijklmnopqrstuvwx")
    assert made.redact("POST /services/T0AB12CD3/B0EF45GH6/abcdefghijklmnopqrstuvwx") == f"POST {MARK}"
    assert (
        made.redact("services at hooks.slack.com: abcdefghijklmnopqrstuvwx") == f"services at hooks.slack.com: {MARK}"
    )


def test_the_beginning_of_a_secret_that_somebody_cut_is_blanked() -> None:
    made = Redactor()
    made.learn("0123456789abcdefghijklmnopqrstuvwxyz")
    made.learn("https://hooks.example.com/services/T0AB12CD3/B0EF45GH6/abcdefghijklmnopqrstuvwx")
    assert made.redact("token 0123456789abcdefghij") == f"token {MARK}"
    assert made.redact("token 0123456789abcdefghij… (cut)") == f"token {MARK}… (cut)"
    coded = base64.b64encode(b"bus:0123456789abcdefghijklmnopqrstuvwxyz").decode()
    assert made.redact(f"Basic {coded[:30]}: 500").endswith(f"{MARK}: 500")
    assert made.redact("at https://hooks.example.com/other") == "at https://hooks.example.com/other"


@pytest.mark.parametrize("before", ["", "u:", "us:", "usr:"])
def test_of_base64_no_sign_is_left_that_has_a_bit_of_the_secret(before: str) -> None:
    made = Redactor()
    made.learn("tr0ub4dor&3")
    for after in ("", "\n", "/x", "/xy"):
        coded = base64.b64encode(f"{before}tr0ub4dor&3{after}".encode()).decode()
        shown = made.redact(f"Basic {coded}")
        left, right = shown.removeprefix("Basic ").split(MARK)
        assert len(left) * 6 // 8 <= len(before), shown
        assert len(right.rstrip("=")) * 6 // 8 <= len(after), shown


def test_an_excerpt_is_cut_after_it_was_redacted() -> None:
    secret = "k" + "0123456789" * 4
    learn(secret)
    assert excerpt(f"abc {secret} def", 10) == "abc ******"


def test_old_values_stay_secret_and_tokens_are_kept_in_a_bounded_number() -> None:
    made = Redactor()
    made.learn("the-first-password")
    for number in range(2 * ISSUED + 1):
        made.learn(f"{number:06}-is-the-number-of-a-token", issued=True)
    assert made.redact("the-first-password") == MARK
    last, first = f"{2 * ISSUED:06}-is-the-number-of-a-token", "000000-is-the-number-of-a-token"
    assert made.redact(last) == MARK
    assert made.redact(first) == first


# --- what it costs, in steps ---


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many secrets each compiled pattern had."""
    counts: list[int] = []
    own = redaction._Table.__init__

    def counted(self: Any, entries: Any) -> None:
        counts.append(len(entries))
        own(self, entries)

    monkeypatch.setattr(redaction._Table, "__init__", counted)
    return counts


def test_nothing_is_compiled_for_a_call(compiled: list[int]) -> None:
    made = Redactor()
    made.learn("a-secret-of-one-pipeline")
    made.redact("x \\n")
    before = list(compiled)
    for _ in range(100):
        made.redact("a text with a-secret-of-one-pipeline \\n")
    assert compiled == before


def test_a_secret_more_costs_the_logarithm_of_their_number(compiled: list[int]) -> None:
    made = Redactor()
    for number in range(1000):
        made.learn(f"{number:04}-is-a-secret")
        made.redact("x")
    assert sum(compiled) < 1000 * 8 * 2 * 12
    assert len(made._lasting.plain.tables) <= 12


def test_a_text_is_searched_once_for_all_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Redactor()
    for number in range(1000):
        made.learn(f"{number:04}-is-a-secret")
    made.redact("x")
    searches = 0

    class Counted:
        def __init__(self, pattern: Any) -> None:
            self._pattern = pattern

        def search(self, data: bytes, at: int) -> Any:
            nonlocal searches
            searches += 1
            return self._pattern.search(data, at)

    for known in (made._lasting.plain, made._lasting.unescaped):
        for table in known.tables:
            monkeypatch.setattr(table, "_prefix", Counted(table._prefix))
    made.redact("nothing to see here, " * 10_000)
    assert searches == len(made._lasting.plain.tables)


def test_who_has_no_secrets_loads_no_library_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "re2", ModuleType("re2"))  # has nothing in it
    assert Redactor().redact("text") == "text"


# --- where text leaves ---


def test_whatever_tells_of_a_failure_holds_no_secret() -> None:
    secret = "hunter2-of-the-office"
    learn(secret)
    error = ConfigurationError(f"bad {secret}", where=f"at {secret}", hint=json.dumps({"try": secret}))
    told: list[Any] = [
        str(error),
        repr(error),
        error.as_dict(),
        Problem("f", 1, "spec", f"found {secret}", f"not {secret}"),
        Cause("x.y", f"because of {secret}", f"change {secret}"),
        Dead(f"answered {secret}"),
        Retry(f"answered {secret}"),
        Unknown(f"answered {secret}"),
        RejectedInput(b"", f"unreadable {secret}", "p"),
        Reception(401, reason=f"no {secret}"),
    ]
    for one in told:
        assert secret not in str(one)
        assert MARK in str(one)


def test_data_is_redacted_however_deep_and_objects_by_their_text() -> None:
    secret = "hunter3-of-the-office"
    learn(secret)
    shown = redact_all({secret: [({"a": secret},), 5, None, True], "o": ValueError(secret), "b": secret.encode()})
    assert secret not in str(shown)
    assert shown[MARK][1:] == [5, None, True]
    assert redact("plain") == "plain"


def test_an_error_code_is_made_of_a_name_and_of_nothing_else() -> None:
    secret = "hunter4ofTheOffice"
    learn(secret)
    assert code_from("INVALID_AUTH", "refused") == "invalid_auth"
    for told in (secret, "<html>", "", "x" * 61):
        assert code_from(told, "refused") == "refused"
