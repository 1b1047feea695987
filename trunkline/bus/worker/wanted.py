"""What manifests ask of a worker, each judged on its own: one that can't run stops no other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trunkline.core.manifests import ManifestError, Project
from trunkline.core.manifests.check import Admit, examine
from trunkline.core.manifests.findings import DEPENDS, Findings
from trunkline.core.manifests.identity import pipeline_identity
from trunkline.core.manifests.kinds import PIPELINE_KINDS
from trunkline.core.manifests.problems import Problem


@dataclass(frozen=True, slots=True)
class Unfit:
    """A pipeline whose manifest can't run, or builds upon one that can't. `identity` differs where the problems do."""

    kind: str
    error: ManifestError

    @property
    def identity(self) -> str:
        """As that of a pipeline: another one when something changed."""
        return f"unfit: {self.error}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The project of the manifests that can run, what each of its pipelines follows from, and the pipelines that can't run."""

    project: Project = field(default_factory=Project)
    identities: Mapping[str, str] = field(default_factory=dict)
    unfit: Mapping[str, Unfit] = field(default_factory=dict)
    pending: frozenset[str] = frozenset()
    """Pipelines of which it is not known yet whether they can run: they stay as they are."""
    stray: tuple[Problem, ...] = ()
    """What has no pipeline to be shown at."""


def judged(found: Project | Findings, admit: Admit | None = None) -> Wanted:
    """Judges manifests that were read. Takes time for large projects; belongs in a thread.

    Of the plug-ins of other packages it imports those that `admit` lets in.
    """
    findings = examine(found, admit=admit)
    project = findings.project
    unfit = {
        name: Unfit(kind, ManifestError(_own_first(problems)))
        for (kind, name), problems in findings.bad.items()
        if kind in PIPELINE_KINDS and name not in project.pipelines
    }
    stray = [
        *findings.stray,
        *(one for (kind, _), bad in findings.bad.items() if kind not in PIPELINE_KINDS for one in bad),
    ]
    identities = {name: pipeline_identity(project, manifest) for name, manifest in project.pipelines.items()}
    pending = frozenset(name for kind, name in findings.pending if kind in PIPELINE_KINDS and name not in unfit)
    return Wanted(project, identities, unfit, pending, tuple(stray))


def judged_strictly(project: Project) -> Wanted:
    """As `judged`. Raises `ManifestError` with every problem where there is one."""
    findings = examine(project)
    findings.raise_for_problems()
    good = findings.project
    return Wanted(good, {name: pipeline_identity(good, manifest) for name, manifest in good.pipelines.items()})


def _own_first(problems: list[Problem]) -> list[Problem]:
    """What is wrong with the manifest itself, else what it builds upon."""
    own = [one for one in problems if one.code != DEPENDS]
    return own or problems
