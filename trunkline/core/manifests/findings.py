"""What an examination of manifests found: the project of those that can run, and what is wrong with each of the others."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from trunkline.core.errors import RetriableError
from trunkline.core.manifests.documents import Origin
from trunkline.core.manifests.kinds import PIPELINE_KINDS
from trunkline.core.manifests.problems import ManifestError, Path_, Problem
from trunkline.core.manifests.project import Project

DEPENDS = "manifest.depends"
"""The code of a problem that a manifest has only because another one has a problem."""

MISSED = frozenset({"manifest.missing_topic", "manifest.missing_connection"})
"""The codes of problems that may come from another manifest's not having been read."""

Key = tuple[str, str]
"""Kind and name of a manifest."""


class PendingError(Exception):
    """A manifest can't be judged yet: what tells whether it can be judged here is under way."""


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
    incomplete: bool = False
    """Whether something could not be read at all: what is missed elsewhere may stand there."""
    upon: dict[Key, set[Key]] = field(default_factory=dict)
    """The bad manifests that others name, by those others."""
    pending: set[Key] = field(default_factory=set)
    """Manifests that could not be judged yet, and those that build upon them: they are in no project, and nothing is wrong with them."""
    not_run: list[Problem] = field(default_factory=list)
    """Code of `python` steps that was looked at and not executed: no faults, but what people should know."""
    _noted: dict[Key, tuple[list[Problem], set[Problem]]] = field(default_factory=dict, init=False, repr=False)
    """The problems of each, and the same as a set: a manifest can have twenty thousand."""

    @property
    def problems(self) -> list[Problem]:
        """Everything that somebody has to mend, in the order of files and lines. What only follows from it is left out."""
        own = [one for problems in self.bad.values() for one in problems if one.code != DEPENDS]
        return sorted(dict.fromkeys([*self.stray, *own]), key=lambda one: (one.file, one.line))

    def blame(self, key: Key, problem: Problem) -> None:
        """Notes a problem of a manifest, once."""
        if self.incomplete and problem.code in MISSED:
            problem = replace(problem, hint="see what could not be read", code=DEPENDS)
        problems = self.bad.setdefault(key, [])
        noted, seen = self._noted.get(key, (None, set()))
        if noted is not problems:
            seen = set(problems)
            self._noted[key] = problems, seen
        if problem not in seen:
            seen.add(problem)
            problems.append(problem)

    def depends(self, key: Key, origin: Origin, path: Path_, upon: Key) -> None:
        """Notes that a manifest can't run because what it names at `path` can't."""
        kind, name = upon
        found = self.bad[upon]
        first = next((one for one in found if one.code != DEPENDS), found[0])
        message = f"the {kind} {name!r} has a problem: {first.message}"
        self.blame(key, origin.problem(path, message, f"see {first.file}:{first.line}", DEPENDS))
        self.upon.setdefault(key, set()).add(upon)

    def require(self, pipeline: str) -> None:
        """Raises `ManifestError` with the problems of one pipeline, where it has any; those of others don't matter.

        `RetriableError` for one that is not judged yet.
        """
        if any(name == pipeline and kind in PIPELINE_KINDS for kind, name in self.pending):
            raise RetriableError(f"the plug-in of {pipeline} is still tried out", code="plugin.pending")
        problems = [
            one
            for (kind, name), found in self.bad.items()
            if name == pipeline and kind in PIPELINE_KINDS
            for one in found
        ]
        if problems:
            raise ManifestError(problems)

    def raise_for_problems(self) -> None:
        """Raises `ManifestError` with every problem, where there is one."""
        problems = self.problems
        if problems:
            raise ManifestError(problems)
