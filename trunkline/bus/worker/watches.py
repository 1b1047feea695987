"""What a worker looks at again and again: the topics and the secrets of its pipelines, and whether their ledgers agree with what is
committed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

from trunkline.bus.accounting.commits import Positions
from trunkline.bus.accounting.ledgerchecks import LedgerChecks
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.bus.worker import secretwatch
from trunkline.bus.worker.board import positions_in
from trunkline.bus.worker.measuring import Measuring, Publish
from trunkline.bus.worker.projectrunner import ProjectRunner
from trunkline.bus.worker.secretwatch import SecretWatch
from trunkline.bus.worker.topicwatch import WATCH_SECONDS, TopicWatch
from trunkline.core.metrics import gauge

LEDGER_SECONDS = 60.0


def measurements(kafka: KafkaSettings, names: Names, runner: ProjectRunner) -> Sequence[Measuring]:
    """All of them, for the pipelines that run."""
    ledgers, watch, secrets = LedgerChecks(kafka, names), TopicWatch(kafka), SecretWatch()

    def check_ledgers() -> Callable[[], Publish]:
        positions = _running_positions(runner)

        def check() -> Publish:
            found = ledgers.update(positions)
            return lambda: _tell_mismatches(runner, found)

        return check

    def watch_topics() -> Callable[[], None]:
        watched, loop = runner.watched(), asyncio.get_running_loop()
        return lambda: watch.look(watched, lambda news: loop.call_soon_threadsafe(runner.topics_changed, news))

    def watch_secrets() -> Callable[[], Publish]:
        references = runner.secrets

        def look() -> Publish:
            marks = secrets.look(references)
            return lambda: runner.secrets_seen(marks)

        return look

    return [
        Measuring(
            watch_secrets, every=secretwatch.WATCH_SECONDS, first=0.0, complaint="the secrets can't be looked at"
        ),
        Measuring(watch_topics, every=WATCH_SECONDS, first=0.0, complaint="the topics can't be looked at"),
        Measuring(check_ledgers, every=LEDGER_SECONDS, first=LEDGER_SECONDS, complaint="the ledgers can't be checked"),
    ]


def _tell_mismatches(runner: ProjectRunner, found: Mapping[str, int]) -> None:
    for pipeline, wrong in found.items():
        if pipeline in runner.hosts:  # one that left meanwhile would have its series again
            gauge("trunkline_ledger_mismatch").labels(pipeline).set(wrong)


def _running_positions(runner: ProjectRunner) -> dict[str, Positions]:
    """How far the pipelines that run here have committed the partitions that they have here."""
    return {host.name: positions_in(host.positions) for host in runner.hosts.values() if host.inputs and host.at_work}
