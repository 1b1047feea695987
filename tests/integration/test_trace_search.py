"""`trunkline trace` finds an event by its id, its key or what is true of it, reads no more than it must, and says what it looked at."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import KafkaUnderTest
from typer.testing import CliRunner, Result

from tests.conftest import MakeTopic
from trunkline.bus.accounting.trace import TraceBatch
from trunkline.bus.kafka import KafkaSettings, produce
from trunkline.bus.names import Names
from trunkline.cli.commands import trace
from trunkline.cli.main import app
from trunkline.control import eventsearch
from trunkline.control.registryserver import serving_registry
from trunkline.core.envelope import Envelope, envelope_to_headers, uuid7
from trunkline.registry.client import RegistryClient
from trunkline.registry.codec import Encoder

pytestmark = pytest.mark.kafka
COUNT = 60
HOUR_MS = 3_600_000


class Orders:
    """A topic with COUNT orders in two partitions, one a minute until now, of ten customers, each with one hop in the trace."""

    def __init__(self, bootstrap: str, namespace: str, folder: Path) -> None:
        self.kafka, self.names, self.folder = KafkaSettings(bootstrap), Names(namespace), folder
        self.topic = f"{namespace}.orders"
        manifest = folder / "topics.yaml"
        manifest.write_text(
            f"""\
apiVersion: trunkline/v1
kind: Topic
metadata: {{name: {self.topic}}}
spec:
  partitions: 2
  schema: {{type: record, name: Order, fields: [{{name: order, type: long}}, {{name: customer, type: string}}]}}
""",
            encoding="utf-8",
        )
        applied = self("apply", "-f", str(manifest), "--yes")
        assert applied.exit_code == 0, applied.output
        with serving_registry(self.kafka, self.names, "a test") as url:
            client = RegistryClient(url)
            encoder = Encoder(client.latest(f"{self.topic}-value"))
            client.close()
        producer = self.kafka.producer()
        now = int(time.time() * 1000)
        self.ids: list[str] = []
        for number in range(COUNT):
            at = now - (COUNT - number) * 60_000
            self.ids.append(_uuid7_of(at))
            envelope = Envelope(self.ids[-1], "/test", "order", correlation_id=f"way-{number}")
            value = encoder.encode({"order": number, "customer": f"c{number % 10}"})
            headers = envelope_to_headers(envelope)
            producer.produce(self.topic, value, f"c{number % 10}".encode(), number % 2, timestamp=at, headers=headers)  # type: ignore[arg-type]
            trace = TraceBatch("orders-out", "Sink", "w1")
            trace.add(self.topic, number % 2, number // 2, f"way-{number}", "delivered", f"row {number}")
            for record in trace.drain():
                produce(producer, self.names.trace, record, b"orders-out", [])
        # A record of somebody else, without any of our headers.
        producer.produce(self.topic, b"no avro", b"foreign", 0)
        assert producer.flush(20) == 0

    def __call__(self, *arguments: str) -> Result:
        shared = ["--bootstrap", self.kafka.bootstrap, "--namespace", self.names.namespace]
        return CliRunner().invoke(app, [*shared, "--home", str(self.folder / "home"), *arguments])

    def data(self, *arguments: str) -> Any:
        result = self("-o", "json", "trace", *arguments)
        assert result.exit_code == 0, result.stderr
        return json.loads(result.stdout)


def _uuid7_of(at: int) -> str:
    """As an id that was made then."""
    stamp = f"{at:012x}"
    return f"{stamp[:8]}-{stamp[8:]}{uuid7()[13:]}"


@pytest.fixture(scope="module")
def orders(kafka: KafkaUnderTest, tmp_path_factory: pytest.TempPathFactory) -> Orders:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("TRUNKLINE_REGISTRY_URL", raising=False)
        return Orders(kafka.bootstrap, f"search{time.time_ns()}", tmp_path_factory.mktemp("search"))


def test_an_event_is_found_by_what_is_true_of_it(orders: Orders) -> None:
    found = orders.data("--topic", orders.topic, "--where", "event.order == 47")
    (event,) = found["events"]
    assert (event["place"], event["id"], event["correlation_id"]) == (f"{orders.topic}[1]@23", orders.ids[47], "way-47")
    assert [(hop["outcome"], hop["detail"]) for hop in event["hops"]] == [("delivered", "row 47")]
    assert found["looked_at"] == {
        "topics": [orders.topic],
        "records": COUNT + 1,
        "since": None,
        "older": 0,
        "left": 0,
    }


def test_people_see_the_place_the_ids_the_hops_and_what_was_looked_at(orders: Orders) -> None:
    result = orders("trace", "--topic", orders.topic, "--where", "event.order == 47")
    assert result.exit_code == 0
    assert f"id {orders.ids[47]}\ncorrelation id way-47\n" in result.stdout
    assert "delivered" in result.stdout
    assert f"looked at {COUNT + 1} records of {orders.topic}" in result.stderr


def test_of_several_events_the_last_ten_are_shown_and_the_others_counted(orders: Orders) -> None:
    found = orders.data("--topic", orders.topic, "--where", "event.customer != 'c9'")
    assert [one["correlation_id"] for one in found["events"]] == [
        f"way-{number}" for number in range(COUNT) if number % 10 != 9
    ][-10:]
    assert found["more"] == COUNT * 9 // 10 - 10


def test_events_are_found_by_their_key(orders: Orders) -> None:
    found = orders.data("--topic", orders.topic, "--key", "c3")
    assert [one["correlation_id"] for one in found["events"]] == [f"way-{number}" for number in range(3, COUNT, 10)]


def test_an_id_of_ours_is_sought_by_the_time_in_it(orders: Orders) -> None:
    found = orders.data("--topic", orders.topic, "--id", orders.ids[40])
    assert [one["correlation_id"] for one in found["events"]] == ["way-40"]
    # A minute before it was made begins the search, and it ends with the record.
    assert found["looked_at"]["records"] <= 3
    assert found["looked_at"]["since"] is not None


def test_an_id_is_sought_in_the_topics_of_the_namespace_and_of_its_manifests(
    orders: Orders, make_topic: MakeTopic
) -> None:
    foreign = make_topic("of-others")
    declared = f"declared{time.time_ns()}"
    manifest = orders.folder / "declared.yaml"
    manifest.write_text(
        f"apiVersion: trunkline/v1\nkind: Topic\nmetadata: {{name: {declared}}}\nspec: {{}}\n", encoding="utf-8"
    )
    assert orders("apply", "-f", str(manifest), "--yes").exit_code == 0

    anywhere = orders.data("--id", orders.ids[40])

    assert [one["correlation_id"] for one in anywhere["events"]] == ["way-40"]
    assert anywhere["looked_at"]["topics"] == sorted([orders.topic, declared])
    assert foreign not in anywhere["looked_at"]["topics"]
    missing = orders("trace", "--id", uuid7())
    assert missing.exit_code == 1
    assert f"records of {declared}, {orders.topic}" in missing.stderr


def test_an_id_of_anybody_is_looked_for_in_the_last_records(orders: Orders) -> None:
    missing = orders("trace", "--topic", orders.topic, "--id", "order-4711")
    assert missing.exit_code == 1
    assert "error[trace.no_event]" in missing.stderr
    assert f"looked at {COUNT + 1} records" in missing.stderr


def test_no_more_records_are_looked_at_than_asked_and_that_is_said(orders: Orders) -> None:
    missing = orders("trace", "--topic", orders.topic, "--where", "event.order == 0", "--most", "20")
    assert missing.exit_code == 1
    assert f"looked at 20 records of {orders.topic}; about {COUNT + 1 - 20} older ones were not" in missing.stderr
    assert "--most" in missing.stderr
    recent = orders.data("--topic", orders.topic, "--key", "c3", "--since", "20m")
    assert [one["correlation_id"] for one in recent["events"]] == ["way-43", "way-53"]


def test_an_event_that_the_trace_has_nothing_of_is_shown_all_the_same(orders: Orders) -> None:
    (event,) = orders.data("--topic", orders.topic, "--key", "foreign")["events"]
    assert event["hops"] == []
    assert event["id"] == event["correlation_id"]
    people = orders("trace", "--topic", orders.topic, "--key", "foreign")
    assert people.exit_code == 0
    assert "no hop of it is in the trace" in people.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], "option.missing"),
        (["some-id", "--key", "k"], "option.conflict"),
        (["--where", "event.order == 1"], "option.missing"),
        (["some-id", "--topic", "orders"], "option.conflict"),
        (["--topic", "TOPIC", "--where", "event.ordr == 1"], "expression.unknown_field"),
        (["--topic", "TOPIC", "--where", "event.order =="], "expression"),
        (["--topic", "no-such-topic", "--key", "k"], "topic.unknown"),
    ],
)
def test_what_can_not_be_looked_for_is_refused(orders: Orders, arguments: list[str], code: str) -> None:
    result = orders("trace", *[orders.topic if one == "TOPIC" else one for one in arguments])
    assert result.exit_code == 2, result.stderr
    assert f"error[{code}" in result.stderr


def test_the_command_looks_at_as_many_records_as_the_service_unless_told_otherwise() -> None:
    assert trace._MOST == eventsearch.MOST
