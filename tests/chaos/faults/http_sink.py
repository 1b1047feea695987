"""The other system of an http sink: a server in a process of its own, which answers by a script and forgets nothing.

A script is a list of rules; the first that fits a request decides its answer, and 200 where none fits. Which requests a rule fits
follows from seed, event and attempt alone, never from the order of arrival, so that a seed means the same faults in each run.
"""

from __future__ import annotations

import json
import subprocess
import urllib.request
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self

from tests.chaos.faults.tied import ROOT, lifeline, tied
from tests.chaos.history import Attempt, Effect, Fact

Answer = int | Literal["time-out", "reset", "garbage", "effect-then-drop"]
"""A status, or: no answer at all, a cut connection, bytes that are no HTTP, a cut connection after the effect took place."""
SERVER = "tests.chaos.faults.http_sink_server"


@dataclass(frozen=True, slots=True)
class Rule:
    """Which requests get which answer.

    * `answer`: what they get; `headers` go with a status.
    * `path`: only requests to this path; `ids`: only these events.
    * `share`: this share of events, chosen by the seed; `attempts`: only the first so many calls of an event.
    * `delay`: seconds before the answer. `held`: it is not given before the script changes again.
    """

    answer: Answer
    path: str | None = None
    ids: tuple[str, ...] | None = None
    share: float = 1.0
    attempts: int | None = None
    delay: float = 0.0
    headers: tuple[tuple[str, str], ...] = ()
    held: bool = False


class Call(NamedTuple):
    """A line of the journal: a request, what it got, and whether it changed the server's state."""

    at: float
    path: str
    key: str
    id: str
    attempt: int
    answer: str
    effect: bool


class HttpSinkServer:
    """Starts the server and reads its journal. Effects are keyed by `Idempotency-Key`: a repeated key has no second effect."""

    def __init__(self, folder: Path, *, seed: int = 0, rules: tuple[Rule, ...] = (), id_field: str = "id") -> None:
        self._journal = folder / "sink.journal"
        self._script = folder / "sink.script.json"
        self._seed = seed
        self._id_field = id_field
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self._calls: list[Call] = []
        self._effects = 0
        self._read_to = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._write_script(rules)

    @property
    def url(self) -> str:
        """Where it serves; the same after a restart."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts the server, or starts it again with all it knew."""
        files = [str(file.absolute()) for file in (self._journal, self._script)]
        self._process = subprocess.Popen(
            tied(SERVER, str(self.port), *files),
            stdin=lifeline(),
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the sink's server did not start: code {self._process.wait()}")
        self.port = int(line)

    def script(self, *rules: Rule) -> None:
        """Changes the answers from the next request on, and gives those that were held until now."""
        self._write_script(rules)
        with urllib.request.urlopen(f"{self.url}/_reload", data=b"") as answer:
            assert answer.status == 200

    def kill(self) -> None:
        """SIGKILL; the journal has everything that was answered."""
        assert self._process is not None
        self._process.kill()
        self._reap()

    def stop(self) -> None:
        """Ends the server."""
        if self._process is not None:
            self._process.terminate()
            self._reap()

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    def _write_script(self, rules: tuple[Rule, ...]) -> None:
        written = {"seed": self._seed, "id": self._id_field, "rules": [asdict(rule) for rule in rules]}
        new = self._script.with_suffix(".new")
        new.write_text(json.dumps(written), encoding="utf-8")
        new.replace(self._script)

    # --- what it knows ---

    def calls(self) -> list[Call]:
        """Every request until now, in the order of their effects."""
        if self._journal.exists():
            with self._journal.open("rb") as lines:
                lines.seek(self._read_to)
                for line in lines:
                    if not line.endswith(b"\n"):
                        break  # it is being written
                    self._calls.append(Call(*json.loads(line)))
                    self._read_to += len(line)
                    self._effects += self._calls[-1].effect
        return self._calls

    @property
    def effects(self) -> int:
        """How many effects took place until now."""
        self.calls()
        return self._effects

    def facts(self, routes: dict[str, str]) -> list[Fact]:
        """Attempts and effects as history; `routes` names the route of each path, and other paths are left out."""
        facts: list[Fact] = []
        for call in self.calls():
            route = routes.get(call.path)
            if route is None:
                continue
            facts.append(Attempt(call.id, route, call.at))
            if call.effect:
                facts.append(Effect(call.id, route, call.at))
        return facts

    @property
    def fired(self) -> Counter[str]:
        """The answers other than 200, by kind."""
        return Counter(f"answer {call.answer}" for call in self.calls() if call.answer != "200")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
