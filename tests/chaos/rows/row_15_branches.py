"""Row 15: a stream that leaves out a part and sends the rest three ways, while one way fails and workers are killed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos import gather
from tests.chaos.campaign import Run, row
from tests.chaos.checker import Promise
from tests.chaos.faults.http_sink import HttpSinkServer, Rule
from tests.chaos.faults.processes import KILL, Fleet
from tests.chaos.history import Attempt, DeadLetter, History
from tests.chaos.scene import EVENT, HELD_AT_MOST, PATIENCE, RETRY, Route, Scene, event_id, file_source
from tests.integration.bus_harness import http_connection, http_sink, topic_manifest, unframed
from trunkline.bus.deadletters import DeadLetter as Letter

BRANCHES = ("good", "plain", "failing")
FAILED = "answer 503"
LEFT_OUT = "event.sequence % 10 < 3"


@row(
    15,
    "a branch failing",
    load="{events:,} events, 30 % filtered, the rest to 3 branches, {workers} workers",
    fault="kill -9 of a random worker, {kills} times; one branch answers 503 to everything for a third of the time, and 400 to 5 %",
    full={"events": 20_000, "workers": 2, "kills": 10, "partitions": 4},
    short={"events": 600, "workers": 1, "kills": 1, "partitions": 2},
    minutes=12,
)
async def branch_failing(run: Run) -> None:
    """Every event that is not filtered ends on every branch, as an effect or as a dead letter, and the failing one delays no other."""
    kafka = await run.kafka()
    with HttpSinkServer(run.folder, seed=run.seed, rules=_rules(failing=True)) as server:
        scene = FanOut(kafka, server, run.folder, run.chance, run["events"], 1, partitions=run["partitions"], keys=20)
        project = await asyncio.to_thread(scene.prepare)
        kept = sum(not _is_left_out(sent.sequence) for sent in scene.sent["r0"])
        with scene.fleet(project, workers=run["workers"]) as workers:
            for number in range(run["kills"]):
                if number == run["kills"] // 3:
                    # The other branches do not wait: they come this far while nothing goes through the third one.
                    mark = int(2 * kept * (number + 1) / (run["kills"] + 2))
                    await scene.until_effects(mark, PATIENCE, workers)
                    run.claim(not _effects_of(server, "failing"), "the failing branch delivered something")
                    await asyncio.to_thread(server.script, *_rules(failing=False))
                mark = int(2 * kept * (number + run.chance.random()) / (run["kills"] + 1))
                await scene.until_effects(mark, PATIENCE, workers)
                workers.start_one(await asyncio.to_thread(workers.kill_any, run.chance))
            await scene.until_settled(PATIENCE, workers)
            run.fires(workers.fired)
            run.claim(not workers.crashed, f"workers died by themselves: {workers.crashed}")
        run.must_fire(KILL, run["kills"])
        run.fires(server.fired)
        run.must_fire(FAILED, 1)
        run.must_fire("answer 400", 1)
        history = await scene.history()
        run.judge(history, scene.promises())
        calls = sum(one.route != _sink("failing") for one in history.of(Attempt))
        run.claim(
            calls - 2 * kept <= run["kills"] * 2 * HELD_AT_MOST, f"{calls} calls of the two good branches for {kept}"
        )
        run.note("filtered", run["events"] - kept)
        run.note("dead letters", len(history.of(DeadLetter)))


def _rules(*, failing: bool) -> tuple[Rule, ...]:
    path = f"/{_sink('failing')}"
    if failing:
        return (Rule(503, path),)
    return (Rule(400, path, share=0.05), Rule(503, path, share=0.3, attempts=2))


def _sink(branch: str) -> str:
    return f"r0-{branch}"


def _is_left_out(sequence: int) -> bool:
    return sequence % 10 < 3


def _effects_of(server: HttpSinkServer, branch: str) -> int:
    return sum(call.effect for call in server.calls() if call.path == f"/{_sink(branch)}")


@dataclass
class FanOut(Scene):
    """One file, one stream that filters, and a topic and a sink for each branch."""

    def _topic(self, branch: str) -> str:
        return f"{self.names.namespace}.r0.{branch}"

    def _manifests(self, route: Route, input_file: Path) -> str:
        targets = ", ".join(f'"{self._topic(branch)}"' for branch in BRANCHES)
        text = topic_manifest(route.first, self.partitions, schema=EVENT)
        for branch in BRANCHES:
            text += http_connection(branch, self.server.url)  # each branch is another system
            text += topic_manifest(self._topic(branch), self.partitions, schema=EVENT)
            text += http_sink(_sink(branch), self._topic(branch), connection=branch, retry=RETRY)
        return (
            text
            + file_source(route, input_file)
            + f"""---
apiVersion: trunkline/v1
kind: Stream
metadata: {{name: {route.stream}}}
spec:
  from: "{route.first}"
  start: earliest
  steps: [{{filter: "!({LEFT_OUT})"}}]
  to: [{targets}]
"""
        )

    async def until_settled(self, seconds: float, workers: Fleet | None = None) -> None:
        """Waits until the stream has read everything, and each branch all of its topic."""
        ledgers = gather.Ledgers(self.kafka, self.names)
        route, sent = self.routes[0], self.sent["r0"]
        kept = sum(not _is_left_out(one.sequence) for one in sent)

        def settled() -> bool:
            return ledgers.read(route.stream, route.first) >= len(sent) and all(
                ledgers.read(_sink(branch), self._topic(branch)) >= kept for branch in BRANCHES
            )

        try:
            await self.until(settled, "everything settled", seconds, workers=workers)
        finally:
            await asyncio.to_thread(ledgers.close)

    def _history(self) -> History:
        history = History()
        route, sent = self.routes[0], self.sent["r0"]
        history.extend(sent)
        history.extend(gather.acknowledged(self.kafka, self.names, route.source, [one.id for one in sent]))
        history.extend(gather.placed(self.kafka, route.first, event_id))
        sinks = [_sink(branch) for branch in BRANCHES]
        commits = list(gather.commits(self.kafka, self.names, [route.stream, *sinks]))
        history.extend(commits)
        ledgers = gather.Ledgers(self.kafka, self.names)
        counted = sum(ledger.filtered for ledger in ledgers.of(route.stream, route.first).values())
        ledgers.close()
        left_out = [one.id for one in sent if _is_left_out(one.sequence)]
        for branch, sink in zip(BRANCHES, sinks, strict=True):
            history.extend(gather.passed_on(self.kafka, self._topic(branch), f"to-{branch}", event_id))
            for letter in gather.dead_letters(self.kafka, self.names, sink, _letter_id):
                # Its bytes are those of the branch's topic; what the door was handed is JSON.
                history.add(DeadLetter(letter.id, sink, letter.at))
            for name in (f"to-{branch}", sink):
                # What the stream left out never comes to a branch.
                found = list(gather.filtered(route.stream, left_out, commits, counted))
                history.extend(replace(one, route=name) for one in found)
        history.extend(self.server.facts({f"/{sink}": sink for sink in sinks}))
        return history

    def promises(self, *, most_repeats: int | None = None) -> Sequence[Promise]:
        """Once and in order on the way to each branch and on each; an event with a dead letter has one."""
        door = (self.routes[0].source,)
        topics = [Promise(f"to-{branch}", door) for branch in BRANCHES]
        sinks = [Promise(_sink(branch), door, most_repeats=most_repeats) for branch in BRANCHES]
        return [*topics, *sinks]


def _letter_id(letter: Letter) -> str:
    found: str = unframed(letter.value or b"", EVENT)["id"]
    return found
