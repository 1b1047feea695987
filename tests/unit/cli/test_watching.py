"""Something that is watched is shown anew each time, survives what may pass, and stands in one place of a terminal."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from terminal import shown_in_terminal

from trunkline.cli.output import Format, Output
from trunkline.cli.watching import watched
from trunkline.core.errors import ConfigurationError, UnavailableError


def _looks(*found: Any) -> Callable[[], Any]:
    """Gives, or raises, one after the other."""
    left = iter(found)

    def look() -> Any:
        one = next(left)
        if isinstance(one, Exception):
            raise one
        return one

    return look


def _until(rounds: int) -> Callable[[float], object]:
    """Waits not at all, and ends with Ctrl-C after so many rounds."""
    left: Iterator[int] = iter(range(rounds - 1))

    def wait(seconds: float) -> None:
        assert seconds == 2.0
        if next(left, None) is None:
            raise KeyboardInterrupt

    return wait


def test_each_look_is_shown_and_what_may_pass_is_told_and_looked_for_again(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(Format.JSON)
    away = UnavailableError("the broker is away", code="kafka.timeout")
    with pytest.raises(KeyboardInterrupt):
        watched(out, _looks([1], away, [2]), out.record, 2.0, wait=_until(3))
    printed = capsys.readouterr()
    assert printed.out == "[1]\n[2]\n"
    assert '"code": "kafka.timeout"' in printed.err


def test_yaml_comes_in_documents(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(Format.YAML)
    with pytest.raises(KeyboardInterrupt):
        watched(out, _looks({"a": 1}, {"a": 2}), out.record, 2.0, wait=_until(2))
    assert capsys.readouterr().out == "---\na: 1\n---\na: 2\n"


def test_what_a_person_must_mend_ends_it() -> None:
    out = Output(Format.JSON)
    with pytest.raises(ConfigurationError):
        watched(out, _looks(ConfigurationError("no pipeline is called so")), out.record, 2.0, wait=_until(9))


def test_in_a_terminal_each_look_stands_where_the_last_one_stood(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def watch() -> None:
        out = Output()
        with pytest.raises(KeyboardInterrupt):
            watched(out, _looks("first", "second"), out.line, 2.0, wait=_until(2))

    shown = shown_in_terminal(monkeypatch, watch)
    first, second = shown.split("\x1b[2J")[1:]
    assert "first" in first
    assert "second" in second
    assert "every 2 s until Ctrl-C" in second
    watch()
    assert "\x1b" not in capsys.readouterr().out
