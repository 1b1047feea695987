"""The child of row 23: compiles and runs hostile expressions, templates and YAML, and watches what Python does meanwhile."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any

from tests.chaos.faults.child import Meter, answer_with
from tests.unit.expressions.escapes import BUSY, EVENT, LARGE, NESTED, attempts, harmless
from tests.unit.http.hostile_templates import BOMBS, ESCAPES, VALUE
from trunkline.core.errors import ConfigurationError, TrunklineError
from trunkline.core.event import Event
from trunkline.core.expressions import ExpressionError, compile_expression
from trunkline.core.manifests import load_text
from trunkline.core.template import compile_template

Case = tuple[str, Callable[[], bool]]
"""What it is called, and whether it went well."""
WATCHED = (
    "os.",
    "subprocess.",
    "socket.",
    "ctypes.",
    "shutil.",
    "pty.",
    "webbrowser.",
    "urllib.",
    "ftplib.",
    "marshal.",
)
"""Audit events (sys.addaudithook) that no expression may cause; `open` for writing is one more."""
_HEAD = "apiVersion: trunkline/v1\nkind: Topic\nmetadata: {name: bomb}\nspec:\n"
YAML = {
    "aliases, ten of ten of ten": _HEAD
    + "  l0: &l0 [a, a, a, a, a, a, a, a, a, a]\n"
    + "".join(f"  l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]\n" for n in range(1, 10)),
    "an alias of itself": _HEAD + "  a: &a [*a]\n",
    "a merge key": _HEAD + "  a: &a {x: 1}\n  b: {<<: *a}\n",
    "100,000 levels of lists": "[" * 100_000,
    "100,000 levels of maps": "{a: " * 100_000,
    "10,000 levels of dashes": "- " * 10_000 + "a",
    "a tag of Python": _HEAD + "  a: !!python/object/apply:os.system ['true']\n",
    "a tag of a module": _HEAD + "  a: !!python/name:os.system\n",
    "a tag of its own": _HEAD + "  a: !evil x\n",
    "five megabytes": _HEAD + "  a: " + "x" * 5 * 2**20 + "\n",
    "a number of sixty parts": _HEAD + "  a: " + ":".join(["59"] * 5000) + "\n",
    "an integer of 100,000 digits": _HEAD + "  a: " + "9" * 100_000 + "\n",
    "20,000 keys that are one": _HEAD + "  a: 1\n" * 20_000,
}


class Watch:
    """What Python did while hostile texts ran."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self._on = False
        sys.addaudithook(self._heard)

    def _heard(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._on:
            return
        writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+")
        # Zone names are looked up in folders, which are listed and read only.
        if writes or (event.startswith(WATCHED) and event not in {"os.listdir", "os.scandir"} and not _loads_itself()):
            self.seen.append(f"{event} {arguments!r:.100}")

    def during(self, work: Callable[[], Any]) -> Any:
        """Listens while the work is done."""
        self._on = True
        try:
            return work()
        finally:
            self._on = False


def _loads_itself() -> bool:
    """Whether a module on disk imports another one, as codecs and zones do at their first use; no generated code asked for it."""
    frame: FrameType | None = sys._getframe(2)
    importing = False
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("importlib"):
        frame, importing = frame.f_back, True
    return importing and frame is not None and not frame.f_code.co_filename.startswith("<")


def _expression(text: str, value: Any) -> Any:
    try:
        return compile_expression(text)(value, Event(value, raw_key=b"k", headers=[("a", b"b")], topic="t"))
    except (ConfigurationError, ExpressionError):
        return None


def _is_harmless(text: str) -> bool:
    return harmless(_expression(text, EVENT))


def _is_refused_expression(text: str) -> bool:
    return _expression(text, LARGE) is None


def _is_refused_template(text: str) -> bool:
    try:
        compile_template(text, "spec.text").render(Event(VALUE))
    except TrunklineError:
        return True
    return False


def _is_refused_manifest(text: str) -> bool:
    try:
        load_text(text, "bomb.yaml")
    except TrunklineError:
        return True
    return False


def work(order: dict[str, Any]) -> dict[str, Any]:
    """Every escape once, and so many bombs by chance."""
    chance = random.Random(order["seed"])
    escapes: list[Case] = [(text, partial(_is_harmless, text)) for text in attempts()]
    escapes += [(text, partial(_is_refused_template, text)) for text in ESCAPES]
    bombs: list[Case] = [(name, partial(_is_refused_manifest, text)) for name, text in YAML.items()]
    bombs += [(text, partial(_is_refused_expression, text)) for text in (*NESTED, *BUSY)]
    bombs += [(text, partial(_is_refused_template, text)) for text in BOMBS]
    chance.shuffle(escapes)
    chance.shuffle(bombs)
    watch, meter = Watch(), Meter()
    before = repr(EVENT), repr(VALUE)
    for kind in (escapes[:1], bombs[:1]):  # what is imported at the first use is no case's matter
        for _, case in kind:
            case()
    broken = []
    tried = {"escapes": escapes[: order["escapes"]], "bombs": bombs[: order["bombs"]]}
    for cases in tried.values():
        for name, case in cases:
            if not meter.run(name, partial(watch.during, case)):
                broken.append(name[:120])
    if (repr(EVENT), repr(VALUE)) != before:
        broken.append("an event was changed")
    counts = {name: len(cases) for name, cases in tried.items()}
    return {"broken": broken, "executed": watch.seen[:20], **counts, **meter.told()}


if __name__ == "__main__":
    answer_with(work)
