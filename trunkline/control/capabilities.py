"""What the workers of a cluster can build: manifests that none of them could run are refused before they are applied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from trunkline.bus.worker.inventory import Inventory
from trunkline.control.cluster import Cluster
from trunkline.core.manifests import ManifestError, Pipeline, Problem, Project
from trunkline.core.manifests import Sink as SinkManifest
from trunkline.core.manifests import Stream as StreamManifest
from trunkline.core.manifests.build import own_code
from trunkline.core.plugins import Kind


def refuse_unable(cluster: Cluster, project: Project, pipelines: Iterable[str]) -> None:
    """Raises `ManifestError` for those of these pipelines that no worker can build."""
    problems = unable(project, pipelines, cluster.board.inventories())
    if problems:
        raise ManifestError(problems)


def unable(project: Project, pipelines: Iterable[str], workers: Sequence[Inventory]) -> list[Problem]:
    """Why no worker can build a pipeline, for each of these where none can. Where no worker runs, nobody knows."""
    if not workers:
        return []
    problems = []
    for name in pipelines:
        manifest = project.pipelines[name]
        reasons = [_lacks(manifest, one) for one in workers]
        if all(reasons):
            path, reason, hint, code = next(one for one in reasons if one)
            of = "the worker" if len(workers) == 1 else f"none of the {len(workers)} workers"
            text = f"{of} can {'not ' if len(workers) == 1 else ''}run it: {reason}"
            problems.append(project.origin(manifest).problem(path, text, hint, code))
    return problems


_Lack = tuple[tuple[str | int, ...], str, str, str]


def _lacks(manifest: Pipeline, worker: Inventory) -> _Lack | None:
    """What a worker lacks: the place in the manifest, the reason, a hint and a code. None where it has all."""
    for path, kind, name in _named(manifest):
        reason = worker.lacks(kind, name)
        if reason is not None:
            return path, reason, "install what it needs where workers run, then restart them", "plugin.nowhere"
    if isinstance(manifest, StreamManifest):
        for path, code in own_code(manifest):
            module = code.partition(":")[0]
            if module.partition(".")[0] not in worker.modules:
                roots = ", ".join(worker.roots[-3:])
                return (
                    path,
                    f"there is no module {module!r} (it imports from {roots})",
                    (
                        "install it where workers run, or name its folder in PYTHONPATH before they start; "
                        "a file beside the manifest serves `run -f` only"
                    ),
                    "python.nowhere",
                )
    return None


def _named(manifest: Pipeline) -> list[tuple[tuple[str | int, ...], Kind, str]]:
    if isinstance(manifest, StreamManifest):
        return [(("spec", "steps", i, one.plugin), "step", one.plugin) for i, one in enumerate(manifest.spec.steps)]
    kind: Kind = "sink" if isinstance(manifest, SinkManifest) else "source"
    found: list[tuple[tuple[str | int, ...], Kind, str]] = [(("spec", "connector"), kind, manifest.spec.connector)]
    fallback = getattr(manifest.spec, "fallback", None)
    if fallback is not None:
        found.append((("spec", "fallback", "connector"), kind, fallback.connector))
    return found
