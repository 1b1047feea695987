"""Manifests judged against those that are applied: a team checks its own file, which builds upon what other teams applied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from trunkline.core.manifests.check import examine
from trunkline.core.manifests.findings import Findings
from trunkline.core.manifests.kinds import PIPELINE_KINDS
from trunkline.core.manifests.project import Project


def examine_against(own: Findings, applied: Findings, **how: Any) -> Findings:
    """Judges `own` manifests together with what is applied and stays. `how` is what `examine` takes.

    A problem of an applied manifest counts only if the own ones bring it about. The project has both, without the bad ones.
    """
    merged = _merged(own, applied.project)
    mine = {*merged.bad, *own.project.origins}
    found = examine(merged, **how)
    strange = [key for key in found.bad if key not in mine]
    before = examine(Findings(applied.project.copy()), **how).bad if strange else {}
    for key in strange:
        if key in before:
            del found.bad[key]
        else:
            found.bad[key] = [replace(one, hint=_effect(one.hint)) for one in found.bad[key]]
    for key in mine:
        if found.upon.get(key) and not found.upon[key] & found.bad.keys():
            # It builds upon what is applied and was bad before: nothing else tells it.
            found.bad[key] = [replace(one, code="manifest.invalid") for one in found.bad[key]]
    return found


def _merged(own: Findings, applied: Project) -> Findings:
    """The own manifests and those applied ones that they do not replace."""
    project = own.project.copy()
    found = Findings(
        project, {key: list(problems) for key, problems in own.bad.items()}, list(own.stray), own.incomplete
    )
    for (kind, name), origin in applied.origins.items():
        if (kind, name) in project.origins or (kind, name) in own.bad:
            continue
        taken = project.pipeline(name) if kind in PIPELINE_KINDS else None
        if taken is not None:
            problem = project.origin(taken).problem(
                ("metadata", "name"),
                f"a {kind} of the name {name!r} is applied",
                "choose another name, or delete that one with --prune",
                "manifest.duplicate",
            )
            found.blame((taken.kind, name), problem)
            continue
        project.of_kind(kind)[name] = applied.of_kind(kind)[name]
        project.origins[kind, name] = origin
    return found


def _effect(hint: str | None) -> str:
    effect = "it is applied, and this change would break it"
    return f"{hint}; {effect}" if hint else effect
