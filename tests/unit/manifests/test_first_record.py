"""`validate` refuses what the first record would be refused for: fields, columns, templates and schemas held against each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.unit.manifests.shop import SHOP, broken
from trunkline.core.manifests.check import examine
from trunkline.core.manifests.findings import Findings
from trunkline.core.manifests.load import gather_files, gather_text
from trunkline.core.manifests.problems import Problem
from trunkline.registry.schema import Schema

URL = 'config: {url: "/bills/{{ event.id }}"}'
HTTP = "connector: http\n  connection: peer\n  " + URL
COLUMNS = "format: {type: csv, columns: [id, customer]}"
SOURCE = "connector: file\n  config: {path: in.csv, format: csv}"
CONNECTIONS = """---
apiVersion: trunkline/v1
kind: Connection
metadata: {name: other}
spec: {connector: %s, config: %s}
"""
SLACK = CONNECTIONS % ("slack", '{token: "${env:T}"}')
SHEETS = CONNECTIONS % ("google_sheets", '{service_account: "${env:T}"}')
SALESFORCE = CONNECTIONS % (
    "salesforce",
    '{url: "https://x.my.salesforce.com", auth: {type: client_credentials, client_id: a, client_secret: "${env:T}"}}',
)
SFTP = CONNECTIONS % ("sftp", '{host: h, user: u, password: "${env:T}", host_keys: ["SHA256:%s"]}' % ("A" * 43))


OTHERS = {"slack": SLACK, "google_sheets": SHEETS, "salesforce": SALESFORCE, "sftp": SFTP}


def judged(text: str, **known: Any) -> Findings:
    """What is found where a registry has nothing, unless `registered` says otherwise."""
    known.setdefault("registered", lambda _subject: None)
    return examine(gather_text(text, "shop.yaml"), schema_check=Schema, **known)


def only(text: str, **known: Any) -> Problem:
    (problem,) = judged(text, **known).problems
    return problem


def sink(connector: str, config: str) -> str:
    return f"connector: {connector}\n  connection: other\n  config: {config}"


# --- what settings of sinks name ----------------------------------------------------------------------------------------

SINKS = [
    (URL, 'config: {url: "/{{ event.idd }}"}', "spec.config.url", "'idd'", "'id'"),
    (URL, 'config: {url: /x, headers: {X-A: "{{ event.totl }}"}}', "spec.config.headers.X-A", "'totl'", "'total'"),
    (URL, 'config: {url: /x, body: {template: "{{ event.totl | tojson }}"}}', "spec.config.body.template", "'totl'", "'total'"),
    (URL, "config: {url: /x, body: {field: custmer}}", "spec.config.body.field", "'custmer'", "'customer'"),
    (URL, "config: {url: /x, body: {field: total}}", "spec.config.body.field", "bytes or string is expected", ""),
    (URL, 'config: {url: "/{{ meta.corelation_id }}"}', "spec.config.url", "'corelation_id'", "'correlation_id'"),
    (URL, 'config: {url: "/{{ event.customer.name }}"}', "spec.config.url", "event.customer has no field 'name'", ""),
    (URL, 'config: {url: "/{% for x in event.items %}{{ x }}{% endfor %}"}', "", "", ""),
    (URL, 'config: {url: "/{% if event.totl is defined %}{{ event.totl }}{% endif %}"}', "spec.config.url", "'totl'", "'total'"),
    (URL, 'config: {url: "/{{ event.totl | default(1) }}"}', "spec.config.url", "'totl'", "'total'"),
    (URL, "config: {url: \"/{{ event['totl'] }}\"}", "spec.config.url", "'totl'", "'total'"),
    (URL, "config: {url: \"/{{ event.get('totl') }}\"}", "spec.config.url", "'totl'", "'total'"),
    (URL, 'config: {url: "/{% set e = event %}{{ e.totl }}"}', "spec.config.url", "'totl'", "'total'"),
    (COLUMNS, "format: {type: csv, columns: [id, custmer]}", "spec.config.format.columns[1]", "'custmer'", "'customer'"),
    (COLUMNS, "format: {type: jsonl, columns: [idd]}", "spec.config.format.columns[0]", "'idd'", "'id'"),
    (HTTP, sink("slack", '{channel: "#{{ event.custmer }}", text: x}'), "spec.config.channel", "'custmer'", "'customer'"),
    (HTTP, sink("slack", '{channel: c, text: "{{ event.totl }}"}'), "spec.config.text", "'totl'", "'total'"),
    (HTTP, sink("slack", '{channel: c, text: x, blocks: [{type: section, text: {text: "{{ event.totl }}"}}]}'),
     "spec.config.blocks[0].text.text", "'totl'", "'total'"),
    (HTTP, sink("google_sheets", "{spreadsheet: s, columns: [id, totl]}"), "spec.config.columns[1]", "'totl'", "'total'"),
    (HTTP, sink("google_sheets", "{spreadsheet: s, columns: {T: event.totl}}"), "spec.config.columns.T", "'totl'", "'total'"),
    (HTTP, sink("google_sheets", "{spreadsheet: s, columns: {T: event.id + 'x'}}"), "spec.config.columns.T", "int + string", ""),
    (HTTP, sink("salesforce", "{object: O, external_id: K__c, fields: {K__c: event.idd}}"), "spec.config.fields.K__c", "'idd'", "'id'"),
    (HTTP, sink("sftp", "{format: {type: csv, columns: [totl]}}"), "spec.config.format.columns[0]", "'totl'", "'total'"),
    ("connection: peer", "connection: peer\n  when: event.totl > 1.0", "spec.when", "'totl'", "'total'"),
    ("connection: peer", "connection: peer\n  fallback: {connector: http, connection: peer, config: {url: '/{{ event.idd }}'}}",
     "spec.fallback.config.url", "'idd'", "'id'"),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "field", "message", "hint"), SINKS)
def test_a_field_that_no_event_has_is_named_wherever_a_sink_names_it(
    old: str, new: str, field: str, message: str, hint: str
) -> None:
    more = next((one for name, one in OTHERS.items() if f"connector: {name}\n" in new), "")
    found = judged(broken(old, new) + more).problems
    if not field:
        assert found == []  # `event.items` is the method of a mapping
        return
    (problem,) = found
    assert (problem.file, problem.field) == ("shop.yaml", field)
    assert message in problem.message
    assert hint in (problem.hint or "")


def test_a_template_of_a_list_of_records_is_checked_to_the_inside() -> None:
    items = (
        "- {name: items, type: {type: array, items: {type: record, name: Item, fields: [{name: sku, type: string}]}}}"
    )
    text = broken("- {name: total, type: double}", items)
    loop = "{%% for item in event['items'] %%}{{ item.%s }}{%% endfor %%}"
    assert judged(text.replace("/bills/{{ event.id }}", loop % "sku")).problems == []
    (problem,) = judged(text.replace("/bills/{{ event.id }}", loop % "skuu")).problems
    assert "Item has no field 'skuu'" in problem.message
    joined = "{{ event['items'] | map(attribute='skuu') | join }}"
    assert "'skuu'" in only(text.replace("/bills/{{ event.id }}", joined)).message


TWO = (
    SHOP
    + """---
apiVersion: trunkline/v1
kind: Topic
metadata: {name: refunds}
spec:
  schema: {type: record, name: Refund, fields: [{name: id, type: long}, {name: reason, type: string}]}
"""
)


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("/{{ event.id }}", ""),
        ("/{{ event.reason }}", "bills"),
        ("/{{ event.reason | default('none') }}", ""),
        ("/{% if event.reason is defined %}{{ event.reason }}{% endif %}", ""),
        ("/{{ event.raeson | default('none') }}", "'raeson'"),
    ],
)
def test_of_two_topics_each_must_have_a_field_unless_the_template_asks_for_it(url: str, fault: str) -> None:
    text = TWO.replace("/bills/{{ event.id }}", url).replace("from: [bills]", "from: [bills, refunds]")
    problems = judged(text).problems
    assert len(problems) == (1 if fault else 0)
    assert not fault or fault in problems[0].message


@pytest.mark.parametrize(
    ("when", "fault"),
    [
        ("event.id > 1", ""),
        ("event.reason == 'x'", "reason"),
        ("has(event.reason) && event.reason == 'x'", ""),
        ("has(event.raeson) && event.raeson == 'x'", "raeson"),
    ],
)
def test_of_two_topics_each_must_have_what_a_filter_reads_unless_it_asks(when: str, fault: str) -> None:
    text = TWO.replace("connection: peer\n", f"connection: peer\n  when: {when}\n").replace(
        "from: [bills]", "from: [bills, refunds]"
    )
    problems = judged(text).problems
    assert len(problems) == (1 if fault else 0)
    assert not fault or fault in problems[0].message


def test_a_csv_file_needs_records_and_names_for_the_envelope_that_no_field_has() -> None:
    plain = broken("metadata: {name: bills}", "metadata: {name: bills}\nspec: {schema: string}").replace(
        "to: [bills]", "to: [orders2]"
    )
    text = (
        plain.replace("from: [orders]\n  start: latest", "from: [bills]\n  start: latest").replace(
            COLUMNS, "format: csv"
        )
        + "---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: orders2}\n"
    )
    assert any("a record is needed" in one.message for one in judged(text).problems)
    clash = broken("name: customer", "name: ce_id").replace(COLUMNS, "format: {type: csv, envelope: [id]}")
    assert "a field 'ce_id' of its own" in only(clash).message


# --- sources ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("csv", "field", "message"),
    [
        ("columns: [id, customer, total]", "", ""),
        ("columns: [id, custmer, total]", "spec.config.csv.columns[1]", "has no field 'custmer'"),
        ("columns: [id, customer, total, more]", "spec.config.csv.columns[3]", "has no field 'more'"),
        ("extra_columns: ignore, columns: [id, customer, total, more]", "", ""),
        ("columns: [id, customer]", "spec.config.csv.columns", "needs the field 'total', and no column is called so"),
    ],
)
def test_the_columns_of_a_csv_file_are_those_of_the_topics_schema(csv: str, field: str, message: str) -> None:
    text = broken("format: csv}", f"format: csv, csv: {{header: false, {csv}}}}}")
    problems = judged(text).problems
    if not field:
        assert problems == []
        return
    assert (field, True) in {(one.field, message in one.message) for one in problems}


POLL = "connector: http_poll\n  connection: peer2\n  config: {path: /x, %s}"
PEER2 = CONNECTIONS.replace("other", "peer2") % ("http_poll", '{base_url: "https://x.example.com"}')


@pytest.mark.parametrize(
    ("source", "more", "field", "name"),
    [
        (POLL % "id: idd", PEER2, "spec.config.id", "idd"),
        (POLL % "key: customer.name", PEER2, "spec.config.key", "name"),
        (POLL % "incremental: {field: updated}", PEER2, "spec.config.incremental.field", "updated"),
        (
            "connector: webhook\n  config: {path: /h, verify: {provider: none}, id_field: idd}",
            "",
            "spec.config.id_field",
            "idd",
        ),
    ],
)
def test_a_field_that_a_source_names_is_one_of_its_topics(source: str, more: str, field: str, name: str) -> None:
    problem = only(broken(SOURCE, source) + more)
    assert problem.field == field
    assert f"'{name}'" in problem.message or f".{name}'" in problem.message


def test_a_source_can_not_write_to_a_topic_without_a_schema_and_a_registry_may_have_one() -> None:
    text = (
        broken("to: [orders]\n", "to: [bare]\n")
        + "---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: bare}\n"
    )
    problem = only(text)
    assert (problem.field, problem.code) == ("spec.to[0].topic", "manifest.no_schema")
    order = {"type": "record", "name": "Order", "fields": [{"name": "id", "type": "long"}]}
    assert judged(text, registered={"bare-value": order}.get).problems == []
    assert judged(text, registered=None).problems == []
    assert (
        judged(text.replace("metadata: {name: bare}", "metadata: {name: bare}\nspec: {external: true}")).problems == []
    )


def test_what_a_schedule_gives_must_fit_a_schema_that_the_topic_declares() -> None:
    text = broken(SOURCE, "connector: schedule\n  config: {every: 1m}")
    problem = only(text)
    assert problem.field == "spec.to[0].topic"
    assert "the target's schema" in problem.message
    other = (
        text.replace("to: [orders]\n", "to: [ticks]\n")
        + "---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: ticks}\n"
    )
    assert judged(other).problems == []


def test_two_sources_can_not_listen_on_one_path() -> None:
    hook = "connector: webhook\n  config: {path: /hooks/a, verify: {provider: none}}"
    text = broken(SOURCE, hook)
    other = "---\n" + text.split("---\n")[-1].replace("name: reader", "name: second")
    problem = only(text + other)
    assert (problem.field, problem.code) == ("spec.config.path", "manifest.path_taken")
    assert "'reader'" in problem.message


# --- streams ------------------------------------------------------------------------------------------------------------

BILLS = "metadata: {name: bills}"


def with_bills(fields: str) -> str:
    return broken(BILLS, f"{BILLS}\nspec: {{schema: {{type: record, name: Bill, fields: [{fields}]}}}}")


ORDER_FIELDS = "{name: id, type: long}, {name: customer, type: string}, {name: total, type: double}"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (ORDER_FIELDS, ""),
        (ORDER_FIELDS + ", {name: note, type: string, default: ''}", ""),
        ("{name: id, type: long}, {name: customer, type: string}", "has no field 'total'"),
        (ORDER_FIELDS + ", {name: due, type: string}", "needs the field 'due'"),
        (ORDER_FIELDS.replace("double", "boolean"), "'total' is double, and the target's schema wants boolean"),
    ],
)
def test_what_passes_through_a_stream_must_fit_the_schema_of_its_target(fields: str, message: str) -> None:
    text = with_bills(fields).replace("/bills/{{ event.id }}", "/x")
    if not message:
        assert judged(text).problems == []
        return
    problem = only(text)
    assert problem.field == "spec.to[0].topic"
    assert message in problem.message


def test_each_of_several_targets_is_held_against_its_own_schema() -> None:
    text = with_bills("{name: id, type: long}").replace("to: [bills]", "to: [{topic: loop}, {topic: bills}]")
    text = (
        text.replace("/bills/{{ event.id }}", "/x")
        + "---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: loop}\n"
    )
    problem = only(text)
    assert problem.field == "spec.to[1].topic"


@pytest.mark.parametrize(
    ("step", "bad"),
    [
        ("python: 'price:up'", True),
        ("python: {call: 'price:up', schema: bill.avsc}", False),
        ("filter: event.id > 1", False),
    ],
)
def test_a_changed_value_needs_a_schema_to_be_written_with(step: str, bad: bool, tmp_path: Path) -> None:
    (tmp_path / "price.py").write_text("def up(value):\n    return value\n")
    (tmp_path / "bill.avsc").write_text(
        '{"type": "record", "name": "Bill", "fields": [{"name": "id", "type": "long"}]}'
    )
    (tmp_path / "shop.yaml").write_text(broken("filter: event.id > 3", step))
    found = examine(gather_files([tmp_path]), registered=lambda _subject: None)
    assert bool(found.problems) == bad, found.problems
    if bad:
        (problem,) = found.problems
        assert (problem.field, problem.code) == ("spec.to[0].topic", "manifest.no_schema")
        assert "the step 'python'" in problem.message
        assert "schema" in (problem.hint or "")


def test_of_a_topic_whose_writer_is_bad_nothing_more_is_said() -> None:
    text = broken("event.id > 3", "event.idd > 3").replace("from: [bills]", "from: [bills]")
    second = "---\n" + SHOP.split("---\n")[3].replace("billing", "second").replace("from: [orders]", "from: [bills]")
    second = second.replace("filter: event.id > 3", "map: {drop: [total]}").replace("to: [bills]", "to: [loop]")
    text += second + "---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: loop}\n"
    found = judged(text)
    assert [one.code for one in found.problems] == ["expression.unknown_field"]
    assert "second" in found.project.streams


# --- schemas and topics -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "field", "message"),
    [
        ("name: customer", "name: customer-id", "spec.schema.fields[1].name", "no valid field name"),
        ("name: customer", "name: id", "spec.schema.fields[1]", "two fields named id"),
        ("type: double", "type: double, default: x", "spec.schema.fields[2].default", "does not match its type"),
        (
            "type: double",
            "type: {type: bytes, logicalType: decimal, precision: 0}",
            "spec.schema.fields[2].type",
            "precision",
        ),
        ("type: double", "type: [string, string]", "spec.schema.fields[2].type[1]", "string twice"),
        ("type: double", "type: {type: enum, name: S, symbols: [a, a]}", "spec.schema.fields[2].type.symbols", "twice"),
        ("name: Order", "name: Or-der", "spec.schema.name", "no valid name"),
    ],
)
def test_what_the_registry_refuses_is_found_with_its_line(old: str, new: str, field: str, message: str) -> None:
    problem = only(broken(old, new))
    assert (problem.field, problem.code) == (field, "manifest.schema")
    assert message in problem.message
    assert problem.line == SHOP[: SHOP.index(old)].count("\n") + 1


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ("retention.ms: 604800000", "", ""),
        ("confluent.key.schema.validation: true", "", ""),
        ("cleanup.policy: 'compact,delete'", "", ""),
        ("retention_ms: 1", "no topic setting 'retention_ms'", "'retention.ms'"),
        ("retention.mss: 1", "no topic setting 'retention.mss'", "'retention.ms'"),
        ("retention.ms: 7d", "a number of milliseconds, found '7d'", "write 604800000"),
        ("max.message.bytes: 10 MB", "a number of bytes, found '10 MB'", "write 10000000"),
        ("cleanup.policy: compcat", "one of compact, delete", "'compact'"),
        ("preallocate: maybe", "true or false", ""),
        ("min.insync.replicas: two", "a number", ""),
    ],
)
def test_a_setting_of_a_topic_that_kafka_would_refuse_is_found(config: str, message: str, hint: str) -> None:
    text = broken("partitions: 2", f"config: {{{config}}}")
    problems = judged(text).problems
    assert len(problems) == (1 if message else 0), problems
    if message:
        assert problems[0].field.startswith("spec.config.")
        assert message in problems[0].message
        assert hint in (problems[0].hint or "")


@pytest.mark.parametrize("own", ["billing.dlq", "billing.retry", "post.parked"])
def test_a_topic_that_a_pipeline_makes_itself_is_not_declared(own: str) -> None:
    text = SHOP + f"---\napiVersion: trunkline/v1\nkind: Topic\nmetadata: {{name: {own}}}\n"
    problem = only(text)
    assert (problem.field, problem.code) == ("metadata.name", "manifest.own_topic")


def test_dead_letters_are_read_by_another_pipeline_and_written_by_none() -> None:
    assert judged(broken("from: [bills]", "from: [files.dlq]").replace("/bills/{{ event.id }}", "/x")).problems == []
    own = only(broken("from: [bills]", "from: [post.dlq]").replace("/bills/{{ event.id }}", "/x"))
    assert (own.field, own.code) == ("spec.from[0]", "manifest.own_topic")
    assert (
        only(broken("to: [bills]", "to: [files.dlq]").replace("from: [bills]", "from: [orders]")).code
        == "manifest.missing_topic"
    )
