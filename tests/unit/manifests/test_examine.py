"""Each manifest is judged on its own: a fault stops its manifest and what builds upon it, and nothing else."""

from __future__ import annotations

import cProfile
import pstats

import pytest

from trunkline.core.manifests.check import examine
from trunkline.core.manifests.findings import DEPENDS, Findings
from trunkline.core.manifests.identity import pipeline_identity
from trunkline.core.manifests.load import gather, gather_text, load_text
from trunkline.core.manifests.problems import ManifestError
from trunkline.core.manifests.yaml import read_documents

GOOD = """\
apiVersion: trunkline/v1
kind: Topic
metadata: {name: orders}
spec:
  schema: {type: record, name: Order, fields: [{name: id, type: long}, {name: customer, type: string}]}
---
apiVersion: trunkline/v1
kind: Topic
metadata: {name: bills}
---
apiVersion: trunkline/v1
kind: Connection
metadata: {name: peer}
spec: {connector: http, config: {base_url: "https://api.example.com"}}
---
apiVersion: trunkline/v1
kind: Stream
metadata: {name: billing, owner: me}
spec:
  from: orders
  start: earliest
  steps: [{filter: event.id > 3}]
  to: bills
---
apiVersion: trunkline/v1
kind: Sink
metadata: {name: files}
spec: {from: orders, start: latest, connector: file, config: {folder: out}}
---
apiVersion: trunkline/v1
kind: Sink
metadata: {name: post}
spec: {from: bills, start: latest, connector: http, connection: peer, config: {url: /bills}}
"""
ALL = {"billing", "files", "post"}


def examined(text: str) -> Findings:
    return examine(gather_text(text, "shop.yaml"))


def without(good: str, bad: str) -> Findings:
    assert good in GOOD
    return examined(GOOD.replace(good, bad, 1))


def test_of_good_manifests_nothing_is_bad_and_the_derived_schema_is_there() -> None:
    found = examined(GOOD)
    assert (found.bad, found.stray, found.problems) == ({}, [], [])
    assert set(found.project.pipelines) == ALL
    assert found.project.schema_of("bills") == found.project.schema_of("orders")


@pytest.mark.parametrize(
    ("good", "bad", "stops"),
    [
        ("event.id > 3", "event.idd > 3", {"billing"}),
        ("config: {folder: out}", "config: {foldr: out}", {"files"}),
        ("start: earliest", "strat: earliest", {"billing"}),
        ("connector: file", "connector: flie", {"files"}),
        ("config: {url: /bills}", 'config: {url: "/{{ evnt.id }}"}', {"post"}),
        ("spec: {from: bills", "spec: {from: bilsl", {"post"}),
        ("to: bills", "to: orders", {"billing"}),
        ("kind: Sink\nmetadata: {name: files}", "kind: Sink\nmetadata: {name: billing}", {"files"}),
    ],
)
def test_a_bad_pipeline_stops_itself_alone(good: str, bad: str, stops: set[str]) -> None:
    found = without(good, bad)
    assert set(found.project.pipelines) == ALL - stops
    assert len(found.bad) == 1
    assert found.problems


@pytest.mark.parametrize(
    ("good", "bad", "root", "stops"),
    [
        ("type: long", "type: lnog", ("Topic", "orders"), {"billing", "files"}),
        ("metadata: {name: bills}", "metadata: {name: bills, onwer: me}", ("Topic", "bills"), {"billing", "post"}),
        ("base_url", "base_ulr", ("Connection", "peer"), {"post"}),
    ],
)
def test_what_builds_upon_a_bad_manifest_stops_too_and_says_upon_which(
    good: str, bad: str, root: tuple[str, str], stops: set[str]
) -> None:
    found = without(good, bad)
    assert set(found.project.pipelines) == ALL - stops
    for name in stops:
        (problem,) = (one for (_, other), problems in found.bad.items() if other == name for one in problems)
        assert problem.code == DEPENDS
        assert f"the {root[0]} {root[1]!r} has a problem: {found.bad[root][0].message}" == problem.message
        assert f"shop.yaml:{found.bad[root][0].line}" in (problem.hint or "")
    # Somebody mends the one; the others follow.
    assert found.problems == found.bad[root]


def test_a_document_that_is_no_manifest_stops_nothing() -> None:
    found = examined(GOOD + "---\njust text\n---\n{kind: Strem, metadata: {name: x}}\n")
    assert set(found.project.pipelines) == ALL
    assert (len(found.stray), found.bad) == (2, {})


def test_streams_in_a_circle_stop_and_the_others_run_on() -> None:
    back = GOOD.split("---\n")[3].replace("billing", "back").replace("from: orders", "from: bills")
    found = examined(
        GOOD.replace("to: bills", "to: [bills, loop]") + TOPIC_LOOP + "---\n" + back.replace("to: bills", "to: orders")
    )
    assert set(found.bad) == {("Stream", "billing"), ("Stream", "back")}
    assert set(found.project.pipelines) == {"files", "post"}


TOPIC_LOOP = "---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: loop}\n"


# --- identity ---------------------------------------------------------------------------------------------------------


def identities(text: str) -> dict[str, str]:
    project = examined(text).project
    return {name: pipeline_identity(project, pipeline) for name, pipeline in project.pipelines.items()}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: billing, owner: me", "name: billing, owner: you"),
        ("name: billing, owner: me", "name: billing, labels: {team: a}, description: Bills."),
        ("metadata: {name: orders}", "metadata: {name: orders, owner: them, labels: {a: b}}"),
        ("metadata: {name: peer}", "metadata: {name: peer, description: The peer.}"),
    ],
)
def test_owner_labels_and_description_change_no_identity(old: str, new: str) -> None:
    assert old in GOOD
    assert identities(GOOD) == identities(GOOD.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("event.id > 3", "event.id > 4", {"billing"}),
        ("config: {folder: out}", "config: {folder: other}", {"files"}),
        ("https://api.example.com", "https://api2.example.com", {"post"}),
        ("{name: id, type: long}", "{name: id, type: long}, {name: n, type: int, default: 0}", ALL),
        ("name: orders}\nspec:\n", "name: orders}\nspec:\n  trust: external\n", {"billing", "files"}),
    ],
)
def test_what_changes_the_behaviour_changes_the_identity(old: str, new: str, changed: set[str]) -> None:
    assert old in GOOD
    before, after = identities(GOOD), identities(GOOD.replace(old, new))
    assert {name for name in before if before[name] != after[name]} == changed


def test_the_connection_of_a_fallback_belongs_to_the_identity() -> None:
    fallback = GOOD.replace(
        "config: {url: /bills}}",
        "config: {url: /bills}, fallback: {connector: http, connection: other, config: {url: /x}}}",
    )
    other = "---\n" + GOOD.split("---\n")[2].replace("peer", "other")
    before, after = identities(fallback + other), identities(fallback + other.replace("api.", "elsewhere."))
    assert {name for name in before if before[name] != after[name]} == {"post"}


# --- many -------------------------------------------------------------------------------------------------------------


def many(count: int, first: int) -> str:
    """`count` streams with a topic of their own each, numbered from `first`."""
    one = GOOD.split("---\n")
    parts = []
    for number in range(first, first + count):
        parts.append(one[0].replace("name: orders", f"name: orders-{number}"))
        stream = one[3].replace("name: billing", f"name: billing-{number}")
        stream = stream.replace("from: orders", f"from: orders-{number}").replace("to: bills", f"to: bills-{number}")
        parts.append(stream.replace("> 3", f"> {number}"))
        parts.append(one[1].replace("name: bills", f"name: bills-{number}"))
    return "---\n".join(parts)


def calls_of(count: int, first: int) -> int:
    """How many functions are called to judge so many, with their identities: a measure of work that no busy machine changes."""
    documents, _ = read_documents(many(count, first), "many.yaml")
    profile = cProfile.Profile()
    profile.enable()
    project = examine(gather(documents)).project
    for pipeline in project.pipelines.values():
        pipeline_identity(project, pipeline)
    profile.disable()
    assert len(project.pipelines) == count
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def test_four_times_as_many_manifests_are_four_times_the_work_and_not_the_square_of_it() -> None:
    calls_of(2, 10_000)  # imports
    assert calls_of(80, 11_000) < 5 * calls_of(20, 12_000)


def calls_of_faults(count: int) -> int:
    """The same for a manifest in which one key stands so many times."""
    text = "apiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: t}\nspec:\n" + "  a: 1\n" * count
    profile = cProfile.Profile()
    profile.enable()
    with pytest.raises(ManifestError) as caught:
        load_text(text, "many.yaml")
    profile.disable()
    assert len(caught.value.problems) >= count - 1
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


def test_four_times_as_many_faults_of_one_manifest_are_four_times_the_work() -> None:
    calls_of_faults(10)  # imports
    assert calls_of_faults(800) < 5 * calls_of_faults(200)


def test_what_was_judged_before_is_judged_again_with_a_fraction_of_the_work() -> None:
    first = calls_of(20, 13_000)
    assert calls_of(20, 13_000) < first / 2
