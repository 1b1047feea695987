"""Secrets and settings: references that resolve late, values that no message shows, fields that say what they take."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pydantic import ValidationError

from connectors.http_poll.settings import HttpPollSettings
from sinks.http.settings import HttpSinkSettings
from trunkline.bus.worker.secretwatch import SecretWatch
from trunkline.core.errors import ConfigurationError
from trunkline.core.http.auth import OAuth2Auth
from trunkline.core.redaction import MARK, redact
from trunkline.core.secret import (
    Secret,
    marks_of,
    resolve_references,
    watched_references,
)
from trunkline.core.secretstores import MAX_BYTES
from trunkline.core.settings import Duration, Settings, Size, parse_duration, parse_size, setting

TOKENS = {"type": "oauth2", "token_url": "https://a.example/t", "client_id": "c", "client_secret": "${env:S}"}


class Account(Settings):
    """Settings of the tests."""

    user: str = setting(description="Who.", references=True)
    password: Secret = setting(description="Secret.")
    patience: Duration = setting(1.0, description="How long.")
    room: Size = setting(10, description="How much.")
    tags: list[str] = setting([], description="Some words.", references=True)
    plain: list[str] = setting([], description="Some words more.")


def test_a_secret_is_resolved_when_it_is_revealed_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account(user="me", password="${env:ACCOUNT_PASSWORD}")  # type: ignore[arg-type]
    monkeypatch.setenv("ACCOUNT_PASSWORD", "tr0ub4dor&3")
    assert account.password.reveal() == "tr0ub4dor&3"
    for shown in (repr(account), str(account), account.model_dump_json(), str(account.password), f"{account.password}"):
        assert "tr0ub4dor" not in shown
    assert "${env:ACCOUNT_PASSWORD}" in account.model_dump_json()


def test_a_missing_secret_is_named_by_its_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    with pytest.raises(ConfigurationError) as raised:
        Secret("${env:NOT_THERE}").reveal()
    assert raised.value.code == "secret.missing"
    assert "NOT_THERE" in str(raised.value)


@pytest.mark.parametrize("value", ["a password in clear", "x${env:A}", "${env:A}${env:B}", "", 5, None])
def test_a_secret_setting_takes_a_reference_and_nothing_else(value: Any) -> None:
    with pytest.raises(ValidationError) as raised:
        Account(user="me", password=value)
    assert "clear" not in str(raised.value)


def test_a_secret_of_a_file_is_its_text_without_the_line_end(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("s3cret-value\n")
    assert Secret(f"${{file:{tmp_path}/key}}").reveal() == "s3cret-value"


def test_a_secret_that_is_no_file_of_text_is_refused_with_the_reason_and_never_waited_for(tmp_path: Path) -> None:
    (tmp_path / "odd").write_bytes(b"\xff\xfe")
    (tmp_path / "large").write_bytes(b"x" * (MAX_BYTES + 1))
    os.mkfifo(tmp_path / "pipe")
    for path, reason in {
        tmp_path: "it is a directory",
        tmp_path / "pipe": "it is no file",
        tmp_path / "odd": "it is not UTF-8",
        tmp_path / "large": "it is larger than 1024 KiB",
        tmp_path / "none": "No such file or directory",
    }.items():
        with pytest.raises(ConfigurationError, match=f"can't be resolved: {reason}") as raised:
            Secret(f"${{file:{path}}}").reveal()
        assert (raised.value.code, str(path) in str(raised.value.hint)) == ("secret.missing", True)


def test_an_unknown_store_is_refused() -> None:
    with pytest.raises(ConfigurationError) as raised:
        Secret("${cloud:thing}").reveal()
    assert raised.value.code == "secret.scheme"


def test_a_default_stands_in_for_what_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    assert resolve_references("${env:NOT_THERE:-here}/x") == "here/x"


@pytest.mark.parametrize("value", ["${env:WHO}", "x ${file:/run/secrets/a} y", "${WHO}", "${ENV:WHO}", "${vault:a#b}"])
def test_a_field_that_takes_no_references_refuses_them(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("WHO", "canary")
    with pytest.raises(ValidationError, match="is not resolved in this setting") as raised:
        Account(user="me", password="${env:X}", plain=["a", value])  # type: ignore[arg-type]
    assert "canary" not in str(raised.value)


def test_fields_that_are_declared_to_take_references_resolve_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHO", "me")
    account = Account(user="${env:WHO}", password="${env:X}", tags=["a", "${env:WHO}"])  # type: ignore[arg-type]
    assert (account.user, account.tags) == ("me", ["a", "me"])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("250ms", 0.25), ("30s", 30), ("5m", 300), ("1h30m", 5400), ("2d", 172800), ("7", 7), (3, 3), ("1.5s", 1.5)],
)
def test_a_length_of_time_is_written_as_people_write_it(text: Any, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "fast", "5 parsecs", "1h and a bit", True])
def test_what_is_no_length_of_time_is_refused(text: Any) -> None:
    with pytest.raises(ValueError, match="30s"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "size"), [("64 KiB", 65536), ("10 MB", 10_000_000), ("1.5kB", 1500), ("7", 7), (9, 9)]
)
def test_a_size_is_written_as_people_write_it(text: Any, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "big", "1 XB", "-1 KB"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="KiB"):
        parse_size(text)


@pytest.mark.parametrize("change", [{"patience": -1}, {"room": -1}, {"colour": "red"}])
def test_a_field_out_of_range_or_unknown_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Account(user="me", password="${env:X}", **change)


# --- whether they changed ---


def test_only_stores_that_can_change_are_watched(tmp_path: Path) -> None:
    data = {
        "auth": [{"token": "${file:/run/secrets/token}"}, "${env:NEVER_CHANGES}"],
        "url": "https://${file:host:-example.com}/${file:path}",
        "size": 5,
        "http": {"ca_file": "/etc/ca.pem", "key_file": None},
    }
    assert watched_references(data) == {
        "${file:/run/secrets/token}",
        "${file:host:-example.com}",
        "${file:path}",
        "/etc/ca.pem",
    }


def test_a_mark_tells_that_a_value_changed_and_nothing_of_the_value(tmp_path: Path) -> None:
    file = tmp_path / "token"
    reference = f"${{file:{file}}}"
    seen = [marks_of([reference])[reference]]
    for value in ("short", "another-value", "short"):
        file.write_text(value)
        seen.append(marks_of([reference])[reference])
    missing, first, second, third = seen
    assert len({missing, first, second}) == 3
    assert third == first
    assert "short" not in first


def test_a_value_counts_once_it_was_seen_twice(tmp_path: Path) -> None:
    file, watch = tmp_path / "token", SecretWatch()
    reference = f"${{file:{file}}}"
    file.write_text("half of it")
    assert watch.look([reference]) == {}
    file.write_text("half of it, and the rest")
    assert watch.look([reference]) == {}
    assert watch.look([reference]) == marks_of([reference])


@pytest.mark.parametrize(
    ("settings", "before"),
    [
        (HttpSinkSettings, {"url": "/x", "headers": {"X-Partner": "${env:PARTNER_GREETING}"}}),
        (HttpPollSettings, {"path": "/x", "headers": {"X-Partner": "${env:PARTNER_GREETING}"}}),
        (HttpPollSettings, {"path": "/x", "params": {"who": "${env:PARTNER_GREETING}"}}),
        (OAuth2Auth, {**TOKENS, "parameters": {"who": "${env:PARTNER_GREETING}"}}),
    ],
)
def test_what_a_reference_gives_a_header_or_parameter_is_a_secret_whatever_they_are_called(
    settings: type[Settings], before: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    value = f"hello-{uuid4().hex}"
    monkeypatch.setenv("PARTNER_GREETING", value)
    assert redact(value) == value
    settings.model_validate(before)
    assert redact(f"400 No {value}") == f"400 No {MARK}"
