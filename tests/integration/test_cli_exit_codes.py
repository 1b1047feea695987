"""No command ends with 0 that failed, or that found nothing of what it was asked for. One table of all of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import typer
from bus_harness import Bus, bus, http_connection, http_sink, topic_manifest
from conftest import KafkaUnderTest
from typer.testing import CliRunner, Result

from trunkline.bus.deadletters import Failure, dead_letter_headers
from trunkline.bus.kafka import produce
from trunkline.bus.states import State
from trunkline.bus.topics import internal_topics
from trunkline.bus.worker.board import Board, Report
from trunkline.cli.main import app
from trunkline.core.cause import Cause

pytestmark = [pytest.mark.kafka, pytest.mark.asyncio(loop_scope="module")]


def order_schema(*more: str) -> dict[str, Any]:
    fields = [{"name": "id", "type": "long"}, {"name": "customer", "type": "string"}]
    fields += [{"name": name, "type": "double", "default": 0.0} for name in more]
    return {"type": "record", "name": "Order", "namespace": "shop", "fields": fields}


FIRST, SECOND = order_schema("price"), order_schema("total")
"""Two versions that have a field each which the other lacks."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(kafka: KafkaUnderTest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Bus]:
    """A topic with records of both versions, a sink `out` with two dead letters, a source `door` with one, and a sink that failed."""
    async with bus(kafka.bootstrap, tmp_path_factory.mktemp("exit-codes")) as made:
        topic = made.name("orders")
        encoders = [await made.encoder(topic, schema) for schema in (FIRST, SECOND)]
        values = [
            encoder.encode({"id": number, "customer": "c", **more})
            for number, (encoder, more) in enumerate(zip(encoders, ({"price": 1.0}, {"total": 2.0}), strict=True))
        ]
        made.home.mkdir(exist_ok=True)
        manifests = made.home / "flow.yaml"
        manifests.write_text(
            topic_manifest(topic, schema=SECOND)
            + http_connection("peer", "http://127.0.0.1:1")
            + http_sink("out", topic, connection="peer")
            + f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: door}}
spec: {{connector: file, config: {{path: {made.home}, pattern: "*.csv", format: csv}}, to: {{topic: "{topic}"}}}}
""",
            encoding="utf-8",
        )
        for plan in internal_topics(made.names):
            await made.create(plan.name, plan.partitions, plan.config)
        await made.create(topic)
        for name in ("out", "door"):
            await made.create(made.names.dead_letters(name))
        await made.create(made.names.retry("out"))
        await made.send(topic, [(value, b"k", []) for value in values])
        applied = await cli(made, "apply", "-f", str(manifests), "--yes", "--no-wait")
        assert applied.exit_code == 0, applied.stderr
        await asyncio.to_thread(fail, made, topic, values)
        yield made


def fail(running: Bus, topic: str, values: list[bytes]) -> None:
    """The dead letters, and the report of a pipeline that failed."""
    producer, board = running.settings.producer(), Board(running.settings, running.names)
    for pipeline, origin, content in (("out", topic, values), ("door", "", [b"a,line,of,a,file"])):
        for number, value in enumerate(content):
            headers = dead_letter_headers(
                [("ce_id", str(number).encode())],
                pipeline=pipeline,
                task="w",
                topic=origin,
                partition=0 if origin else -1,
                offset=number if origin else -1,
                failure=Failure("SINK", "sink.rejected", "no"),
            )
            produce(producer, running.names.dead_letters(pipeline), value, b"k", headers, partition=0)
    assert producer.flush(30) == 0
    cause = Cause("http.unauthorized", "401", since=time.time())
    board.report(Report("broken", "Sink", "w", State.FAILED, time.time(), time.time(), cause=cause))
    board.flush()


async def cli(running: Bus, *arguments: str) -> Result:
    shared = ["--bootstrap", running.settings.bootstrap, "--namespace", running.names.namespace]
    shared += ["--registry", running.registry_url, "--home", str(running.home)]
    return await asyncio.to_thread(CliRunner().invoke, app, [*shared, *arguments])


CASES: list[tuple[str, int, str]] = [
    # A pipeline that fails.
    ("status", 1, "error[status.failing]: 1 of 3 pipelines can't do their work: broken"),
    ("-o json status broken", 1, '"code": "status.failing"'),
    # A filter with a field that no version of the schema has, and filters that some records have.
    ("topic tail {topic} --filter event.totl>1", 2, "did you mean 'total'?"),
    ("topic tail {topic} --filter event.total>1.0", 0, ""),
    ("topic tail {topic} --filter event.price>5.0", 1, "error[filter.unjudged]"),
    ("topic tail {topic} --filter event.customer>5", 2, "error[expression.wrong_type]"),
    ("dlq show out --filter event.totl>1", 2, "did you mean 'total'?"),
    ("dlq redrive out --filter event.totl>1 --dry-run", 2, "did you mean 'total'?"),
    ("dlq redrive out --filter event.total>1.0&&letter.attempts==1 --dry-run", 0, ""),
    ("dlq redrive out --filter event.price>5.0 --dry-run", 1, "error[filter.unjudged]"),
    # A redrive of which nothing can be sent.
    ("dlq redrive door", 1, "error[redrive.refused]"),
    # Lists of what is asked for by a name that nothing has.
    ("job list outt", 2, "did you mean 'out'?"),
    ("audit ls --pipeline outt", 2, "did you mean 'out'?"),
]
MORE: list[tuple[str, int, str]] = [
    ("status outt", 2, "did you mean 'out'?"),
    ("lag outt", 2, "did you mean 'out'?"),
    ("reconcile outt", 2, "did you mean 'out'?"),
    ("reconcile door", 2, "error[reconcile.source]"),
    ("pause outt", 2, "did you mean 'out'?"),
    ("restart outt", 2, "did you mean 'out'?"),
    ("offsets show outt", 2, "did you mean 'out'?"),
    ("offsets set outt --to earliest", 2, "did you mean 'out'?"),
    ("dlq ls outt", 2, "did you mean 'out'?"),
    ("dlq show outt", 2, "did you mean 'out'?"),
    ("dlq redrive outt", 2, "did you mean 'out'?"),
    ("dlq show out 0@77", 2, "error[dlq.unknown]"),
    ("parked ls outt", 2, "did you mean 'out'?"),
    ("parked show out --key nobody", 2, "error[parked.unknown]"),
    ("parked retry out --key nobody", 2, "error[parked.unknown]"),
    ("delete Sink/outt --dry-run", 2, "outt"),
    ("trace 00000000", 1, "error[trace.unknown]"),
    ("job show nobody", 2, "error[job.unknown]"),
    ("job resume nobody", 2, "error[job.unknown]"),
    ("budget show nobody", 2, "error[budget.unknown]"),
    ("broker user create ann --produce {topic}", 2, "error[kafka.no_authorizer]"),
    ("broker user rm ann", 2, "error[kafka.no_authorizer]"),
    ("broker user ls", 2, "error[kafka.no_authorizer]"),
    ("dlq drop outt --reason no --yes", 2, "did you mean 'out'?"),
    ("key create ann --role viewr", 2, "error[key.role]"),
    ("key rotate nobody", 2, "error[key.unknown]"),
    ("key revoke nobody", 2, "error[key.unknown]"),
    ("worker get nobody", 2, "nobody"),
    ("manifest get Sink/outt", 2, "outt"),
    ("loglevel debugg", 2, "error[option.level]"),
    ("audit search --since yesterdayy", 2, "yesterdayy"),
    ("topic describe nothing", 2, "nothing"),
    ("topic tail nothing", 2, "nothing"),
    ("topic delete nothing --yes", 2, "nothing"),
    ("schema show nothing", 2, "error[schema.unknown_subject]"),
    ("schema check {schema} --subject nothing", 2, "error[schema.unknown_subject]"),
    ("schema check {schema} --subject {topic}", 1, "error[schema.incompatible]"),
    ("schema infer nothing.csv", 2, "error[schema.sample]"),
    ("validate -f nothing.yaml", 2, "nothing.yaml"),
    ("plan -f nothing.yaml", 2, "nothing.yaml"),
    ("apply -f nothing.yaml --yes", 2, "nothing.yaml"),
    ("connector describe nothing", 2, "nothing"),
    ("connector test out -f nothing.yaml", 2, "nothing.yaml"),
    ("mock nothing", 2, "nothing"),
]
ROWS = [*CASES, *(pytest.param(*case, marks=pytest.mark.slow) for case in MORE)]
NAMES = [case[0].replace(" ", "_") for case in (*CASES, *MORE)]


@pytest.mark.parametrize(("command", "code", "said"), ROWS, ids=NAMES)
async def test_what_failed_or_was_not_there_is_no_success(
    running: Bus, tmp_path: Path, command: str, code: int, said: str
) -> None:
    schema = tmp_path / "order.avsc"
    schema.write_text(
        '{"type": "record", "name": "Order", "namespace": "shop", "fields": [{"name": "n", "type": "int"}]}'
    )
    arguments = [one.format(topic=running.name("orders"), schema=schema) for one in command.split()]
    found = await cli(running, *arguments)
    assert (found.exit_code, said in found.stderr) == (code, True), found.stderr + found.stdout


ELSEWHERE = {
    "up", "run", "demo", "doctor", "broker client",  # have tests of their own, with what they start or look at
    "resume", "stop", "start",  # ask as `pause` does
    "offsets adopt", "parked drop", "parked edit", "job pause", "job cancel",  # find what they are about as their neighbours do
    "topic ls", "schema ls", "budget list", "connector ls", "connector new",  # are asked for nothing by name
    "key ls", "worker ls", "manifest ls",
    "audit verify", "audit export",  # `test_audit_kept.py` has what they find
}  # fmt: skip


async def test_every_command_is_in_the_table_or_has_a_reason_not_to_be() -> None:
    def commands(group: Any, prefix: str = "") -> set[str]:
        found = set()
        for name, one in group.commands.items():
            found |= commands(one, f"{prefix}{name} ") if hasattr(one, "commands") else {f"{prefix}{name}"}
        return found

    known = commands(typer.main.get_command(app))
    rows = {row[0].removeprefix("-o json ") for row in (*CASES, *MORE)}
    covered = {name for name in known if any(row == name or row.startswith(f"{name} ") for row in rows)}
    hidden = {name for name in known if name.endswith(" list") and f"{name.removesuffix('list')}ls" in known}
    assert known - covered - hidden == ELSEWHERE
