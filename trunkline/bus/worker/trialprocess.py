"""The process in which a worker tries out other people's code: `python -m trunkline.bus.worker.trialprocess`.

It reads a request a frame from standard input and answers each with one line of JSON, one after another. Whatever the code does
(it may crash, block for ever or end the process) happens here and not to the worker. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from trunkline.bus.source.splits import splits_of
from trunkline.core.contracts import PluginContext, PushSource, Sink, Source
from trunkline.core.errors import TrunklineError
from trunkline.core.log import configure_logging, get_logger
from trunkline.core.manifests import ManifestError, Pipeline, Project
from trunkline.core.manifests import Sink as SinkManifest
from trunkline.core.manifests import Source as SourceManifest
from trunkline.core.manifests import Stream as StreamManifest
from trunkline.core.manifests.build import build_fallback, build_sink, build_source, prepare_steps
from trunkline.core.manifests.check import examine
from trunkline.core.manifests.findings import Key
from trunkline.core.redaction import redact
from trunkline.core.secretpolicy import protect
from trunkline.core.uncaught import redact_what_nobody_catches

READY = b"ready\n"
"""What it says before its first request."""


@dataclass(frozen=True, slots=True)
class Request:
    """A manifest to try out, with the part of the project that it needs.

    With `opens`, a pipeline's plug-in is made and opened; else it is only judged, as a worker does before it runs anything.
    """

    project: Project
    key: Key
    namespace: str
    opens: bool
    number: int
    protected: tuple[str, ...] = ()
    """Folders that no secret is read from."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What went wrong: the name of the error's class, and what it said."""

    kind: str
    message: str
    where: str | None = None
    hint: str | None = None
    code: str | None = None


def try_out(request: Request) -> Refusal | None:
    """Makes and opens what the pipeline's manifest names, and closes it again. None where all went well.

    What is only judged has come to its end, whatever was found: the worker finds that again.
    """
    for protected in request.protected:
        protect(protected)
    kind, name = request.key
    manifest = request.project.of_kind(kind)[name]
    try:
        if not request.opens:
            schemas = {request.project.subject_of(topic): one for topic, one in request.project.schemas.items()}
            examine(request.project, registered=schemas.get)
        elif isinstance(manifest, StreamManifest):
            for schema in {topic: request.project.schema_of(topic) for topic in manifest.spec.from_}.values():
                prepare_steps(request.project, manifest, schema)
        else:
            with tempfile.TemporaryDirectory(prefix="trunkline-trial-") as folder:
                asyncio.run(_open_and_close(request, manifest, Path(folder)))
    except ManifestError as error:
        first = error.problems[0]
        where = f"{first.file}:{first.line}: {first.field}"
        return Refusal("ConfigurationError", first.message, where, first.hint, first.code)
    except TrunklineError as error:
        return Refusal(type(error).__name__, error.message, error.where, error.hint, error.code)
    except BaseException as error:  # noqa: BLE001 (also SystemExit: it is told to the worker, not obeyed)
        # Redacted here, as errors of ours are: the worker may not know the secrets yet.
        return Refusal("DefectError", redact(f"{type(error).__name__}: {error}"), None, None, "plugin.broken")
    return None


async def _open_and_close(request: Request, manifest: Pipeline, folder: Path) -> None:
    plugins: list[Source | PushSource | Sink | None] = []
    if isinstance(manifest, SourceManifest):
        plugins = [build_source(request.project, manifest)]
    elif isinstance(manifest, SinkManifest):
        plugins = [build_sink(request.project, manifest), build_fallback(request.project, manifest)]
    name = manifest.metadata.name
    log = get_logger("trunkline.trial").bind(pipeline=name)
    context = PluginContext(request.namespace, name, folder, log)
    for plugin in plugins:
        if plugin is None:
            continue
        try:
            await plugin.open(context)
            if isinstance(plugin, Source):
                splits_of(plugin)
        finally:
            # What closing says after a failed opening hides what the opening said.
            with contextlib.suppress(Exception):
                await plugin.close()


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame, four bytes of length before it; None at the end."""
    head = stream.read(4)
    return stream.read(int.from_bytes(head, "big")) if len(head) == 4 else None


def frame(content: bytes) -> bytes:
    """A frame as `read_frame` reads it."""
    return len(content).to_bytes(4, "big") + content


def main() -> None:
    """Answers requests until standard input ends. What the code prints goes to standard error."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    configure_logging("warning")
    redact_what_nobody_catches()
    own = os.getpid()
    answers.write(READY.decode())
    answers.flush()
    while (content := read_frame(requests)) is not None:
        request: Request = pickle.loads(content)  # noqa: S301 (from the worker that started this process, through a pipe of its own)
        refusal = try_out(request)
        if os.getpid() != own:
            os._exit(0)  # the code forked, and this is the child
        told = None if refusal is None else {name: getattr(refusal, name) for name in _FIELDS}
        answers.write(json.dumps({"asked": request.number, "refusal": told}) + "\n")
        answers.flush()
    # At once: a thread that the code began may never end.
    os._exit(0)


_FIELDS = ("kind", "message", "where", "hint", "code")

if __name__ == "__main__":
    sys.modules["trunkline.bus.worker.trialprocess"] = sys.modules[
        "__main__"
    ]  # the requests are pickled under this name
    main()
