"""What an examination of manifests found: the project of those that can run, and what is wrong with each of the others."""

from __future__ import annotations

from dataclasses import dataclass, field

from trunkline.core.manifests.problems import ManifestError, Origin, Problem
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.yaml import Path_

DEPENDS = "manifest.depends"
"""The code of a problem that a manifest has only because another one has a problem."""

Key = tuple[str, str]
"""Kind and name of a manifest."""


@dataclass(slots=True)
class Findings:
    """Each manifest judged on its own.

    `project` has the manifests without problems, with the schemas that streams derive. `bad` has the problems of each other one by
    kind and name; one that only builds upon a bad one is bad too, with a problem of the code `DEPENDS`. `stray` are the problems of
    what has no kind and name: files that can't be read, documents that are no manifests.
    """

    project: Project = field(default_factory=Project)
    bad: dict[Key, list[Problem]] = field(default_factory=dict)
    stray: list[Problem] = field(default_factory=list)
    not_run: list[Problem] = field(default_factory=list)
    """Code of `python` steps that was looked at and not executed: no faults, but what people should know."""

    @property
    def problems(self) -> list[Problem]:
        """Everything that somebody has to mend, in the order of files and lines. What only follows from it is left out."""
        own = [one for problems in self.bad.values() for one in problems if one.code != DEPENDS]
        return sorted(dict.fromkeys([*self.stray, *own]), key=lambda one: (one.file, one.line))

    def blame(self, key: Key, problem: Problem) -> None:
        """Notes a problem of a manifest, once."""
        problems = self.bad.setdefault(key, [])
        if problem not in problems:
            problems.append(problem)

    def depends(self, key: Key, origin: Origin, path: Path_, upon: Key) -> None:
        """Notes that a manifest can't run because what it names at `path` can't."""
        kind, name = upon
        found = self.bad.get(upon)
        first = next((one for one in found if one.code != DEPENDS), found[0]) if found else None
        self.blame(
            key,
            origin.problem(
                path,
                f"the {kind} {name!r} has a problem" + (f": {first.message}" if first else ""),
                f"see {first.file}:{first.line}" if first else "see the files that can't be read",
                DEPENDS,
            ),
        )

    def raise_for_problems(self) -> None:
        """Raises `ManifestError` with every problem, where there is one."""
        problems = self.problems
        if problems:
            raise ManifestError(problems)
