"""Commands: of changes that meet none is lost, each has its audit entry in its place, and who is overtaken begins again or is told."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_rivals import change, count_of, topic
from confluent_kafka import KafkaError, KafkaException, Producer
from conftest import KafkaUnderTest

from trunkline.bus import commands
from trunkline.bus.accounting.audit import Entry, entries
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.states import Desired
from trunkline.bus.topics import ensure_topics, internal_topics
from trunkline.bus.worker.applied import plan, read_applied
from trunkline.bus.worker.applying import read_state, write_changes
from trunkline.bus.worker.wishes import read_wishes, want
from trunkline.core.errors import ConflictError, RetriableError

pytestmark = pytest.mark.kafka
RIVALS = Path(__file__).with_name("command_rivals.py")


class Office:
    """Where commands are given, in a namespace of its own."""

    def __init__(self, settings: KafkaSettings, names: Names) -> None:
        self.settings = settings
        self.names = names

    def rival(self, who: str, times: str) -> subprocess.Popen[str]:
        arguments = [sys.executable, str(RIVALS), self.settings.bootstrap, self.names.namespace, who, times]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def trail(self, action: str = "") -> list[Entry]:
        return [one for one in entries(self.settings, self.names) if one.action.startswith(action)]

    def restart(self, by: str = "ada") -> int:
        return want(self.settings, self.names, ["out"], by=by, restart=True)["out"].restart

    def restarts(self) -> int:
        return read_wishes(self.settings, self.names)["out"].restart


@pytest.fixture
def office(kafka: KafkaUnderTest, namespace: str) -> Office:
    settings, names = KafkaSettings(kafka.bootstrap), Names(namespace)
    wanted = {names.manifests, names.control, names.audit}
    ensure_topics(settings, [one for one in internal_topics(names) if one.name in wanted])
    return Office(settings, names)


def _counted(entry: Entry) -> tuple[int, int]:
    """What the label was and became."""
    (step,) = [one for one in entry.details["fields"] if one["field"] == "metadata.labels.count"]
    return int(step["before"]), int(step["after"])


@pytest.mark.parametrize("each", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_of_changes_that_two_processes_make_at_once_none_is_lost_and_the_trail_has_them_in_order(
    office: Office, each: int
) -> None:
    rivals = [office.rival(who, str(each)) for who in ("ada", "bob")]
    for one in rivals:
        _, said = one.communicate(timeout=240)
        assert one.returncode == 0, said
    applied = read_applied(office.settings, office.names)
    wanted = {"shared": 2 * each, "ada": each, "bob": each}
    assert {name: count_of(applied, name) for name in wanted} == wanted
    assert office.restarts() == 2 * each
    trail = office.trail()
    for name, times in wanted.items():
        own = [one for one in trail if one.subject == f"Topic/{name}"]
        assert len(own) == times
        steps = [_counted(one) for one in own[1:]]
        assert steps == [(n, n + 1) for n in range(1, times)]
    restarts = [one.details for one in trail if one.action == "pipeline.restart"]
    assert [(one["before"]["restart"], one["after"]["restart"]) for one in restarts] == [
        (n, n + 1) for n in range(2 * each)
    ]


def test_of_a_process_killed_between_write_and_commit_nothing_is_there_and_the_next_one_waits_for_nothing(
    office: Office,
) -> None:
    victim = office.rival("eve", "killed")
    victim.communicate(timeout=240)
    assert victim.returncode == -9
    change(office.settings, office.names, "shared", "ada")
    assert count_of(read_applied(office.settings, office.names), "shared") == 1
    assert [one.who for one in office.trail()] == ["ada"]


def _once(monkeypatch: pytest.MonkeyPatch, instead: Callable[[Producer, Callable[[Producer], None]], None]) -> None:
    """The next commit goes as `instead` says, which is given the real one."""
    real = commands.commit

    def commit(producer: Producer) -> None:
        monkeypatch.setattr(commands, "commit", real)
        instead(producer, real)

    monkeypatch.setattr(commands, "commit", commit)


def test_who_is_fenced_between_write_and_commit_begins_again_from_the_newer_state(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overtaken(producer: Producer, real: Callable[[Producer], None]) -> None:
        office.restart("bob")
        real(producer)

    _once(monkeypatch, overtaken)
    assert office.restart("ada") == 2
    assert [(one.who, one.details["after"]["restart"]) for one in office.trail()] == [("bob", 1), ("ada", 2)]


@pytest.mark.parametrize("came", [True, False], ids=["committed", "not committed"])
def test_after_a_commit_that_nobody_knows_the_outcome_of_it_is_looked_for_and_made_once(
    office: Office, monkeypatch: pytest.MonkeyPatch, came: bool
) -> None:
    def lost(producer: Producer, real: Callable[[Producer], None]) -> None:
        if came:
            real(producer)
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))

    office.restart()
    _once(monkeypatch, lost)
    assert office.restart() == 2
    assert office.restarts() == 2
    assert len(office.trail()) == 2


def test_who_is_fenced_all_the_time_is_told_so_and_nothing_is_written(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fenced(_producer: Producer) -> None:
        raise KafkaException(KafkaError(KafkaError._FENCED))

    monkeypatch.setattr(commands, "commit", fenced)
    monkeypatch.setattr(commands, "PATIENCE_SECONDS", 1.0)
    with pytest.raises(RetriableError) as raised:
        office.restart()
    assert raised.value.code in {"command.contended", "command.unknown"}
    assert office.trail() == []


def _apply(office: Office, manifests: dict[str, dict[str, Any]], by: str, *, prune: bool = False) -> Callable[[], None]:
    """A plan as it was shown, to be carried out later."""
    seen = read_state(office.settings, office.names)
    changes = plan(seen.manifests, manifests, prune=prune)

    def carry_out() -> None:
        write_changes(
            office.settings,
            office.names,
            changes,
            manifests,
            by=by,
            seen=seen,
            replan=lambda now: plan(now, manifests, prune=prune),
        )

    return carry_out


def test_a_plan_for_what_somebody_changed_meanwhile_is_refused_with_the_difference(office: Office) -> None:
    _apply(office, {"Topic/orders": topic("orders", 1)}, "ada")()
    late = _apply(office, {"Topic/orders": topic("orders", 5), "Topic/new": topic("new", 1)}, "bob")
    _apply(office, {"Topic/orders": topic("orders", 2)}, "ada")()
    with pytest.raises(ConflictError) as raised:
        late()
    error = raised.value
    assert (error.code, error.exit_code) == ("change.conflict", 1)
    assert "Topic/orders was changed by ada" in error.message
    assert "metadata.labels.count: 1 → 2" in error.message
    (moved,) = error.as_dict()["moved"]
    assert (moved["key"], moved["by"], moved["deleted"]) == ("Topic/orders", "ada", False)
    assert moved["fields"] == [{"field": "metadata.labels.count", "old": "1", "new": "2"}]
    assert list(read_applied(office.settings, office.names)) == ["Topic/orders"]


def test_a_deletion_meanwhile_is_told_with_who_made_it(office: Office) -> None:
    _apply(office, {"Topic/orders": topic("orders", 1)}, "ada")()
    late = _apply(office, {"Topic/orders": topic("orders", 5)}, "bob")
    _apply(office, {}, "cyd", prune=True)()
    with pytest.raises(ConflictError, match="Topic/orders was deleted by cyd"):
        late()
    assert read_applied(office.settings, office.names) == {}


def test_plans_for_different_manifests_do_not_disturb_each_other_unless_one_would_delete_what_the_other_made(
    office: Office,
) -> None:
    first = _apply(office, {"Topic/a": topic("a", 1)}, "ada")
    second = _apply(office, {"Topic/b": topic("b", 1)}, "bob")
    third = _apply(office, {"Topic/c": topic("c", 1)}, "cyd", prune=True)
    first()
    second()
    with pytest.raises(ConflictError, match="Topic/a was changed by ada"):
        third()
    assert set(read_applied(office.settings, office.names)) == {"Topic/a", "Topic/b"}


def test_the_same_change_made_by_two_is_made_once(office: Office) -> None:
    first, second = (_apply(office, {"Topic/a": topic("a", 1)}, who) for who in ("ada", "bob"))
    first()
    second()
    assert [one.who for one in office.trail()] == ["ada"]


def test_the_trail_says_what_was_and_is_and_keeps_no_secret(office: Office) -> None:
    def sink(password: str) -> dict[str, dict[str, Any]]:
        config = {"url": f"https://user:{password}@host/x", "headers": {"Authorization": f"Bearer {password}"}}
        return {"Sink/api": {"kind": "Sink", "metadata": {"name": "api"}, "spec": {"config": {**config, "batch": 1}}}}

    _apply(office, sink("hunter2"), "ada")()
    _apply(office, sink("hunter3"), "ada")()
    _apply(office, {}, "bob", prune=True)()
    trail = office.trail()
    assert [(one.who, one.action, one.pipeline, one.subject) for one in trail] == [
        ("ada", "manifest.create", "api", "Sink/api"),
        ("ada", "manifest.change", "api", "Sink/api"),
        ("bob", "manifest.delete", "api", "Sink/api"),
    ]
    assert trail[0].details["after"]["spec"]["config"] == {
        "url": "https://user:********@host/x",
        "headers": {"Authorization": "********"},
        "batch": 1,
    }
    assert [one["field"] for one in trail[1].details["fields"]] == [
        "spec.config.headers.Authorization",
        "spec.config.url",
    ]
    assert "hunter" not in str([one.details for one in trail])


def test_of_a_manifest_that_is_too_large_for_the_trail_it_has_a_digest(office: Office) -> None:
    def large(letter: str) -> dict[str, dict[str, Any]]:
        return {"Topic/a": {**topic("a", 1), "spec": {"schema": {"doc": letter * 700_000}}}}

    _apply(office, large("x"), "ada")()
    _apply(office, large("y"), "ada")()
    first, second = office.trail()
    assert first.details["before"] is None
    assert first.details["after"]["bytes"] > 700_000
    assert second.details["before"] == first.details["after"] != second.details["after"]


def test_wishes_that_name_the_version_they_were_made_for_are_refused_when_it_moved(office: Office) -> None:
    want(office.settings, office.names, ["out"], by="ada", desired=Desired.PAUSED)
    seen = {"out": read_wishes(office.settings, office.names)["out"].version}
    want(office.settings, office.names, ["out"], by="bob", desired=Desired.STOPPED)
    with pytest.raises(ConflictError, match="out was changed by bob"):
        want(office.settings, office.names, ["out", "in"], by="ada", desired=Desired.RUNNING, seen=seen)
    assert read_wishes(office.settings, office.names)["out"].desired is Desired.STOPPED
    assert "in" not in read_wishes(office.settings, office.names)
    assert [one.action for one in office.trail()] == ["pipeline.pause", "pipeline.stop"]
