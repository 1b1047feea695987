"""Loading: from YAML texts, files and what is applied to a project, with the problems that the models can see."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from trunkline.core.errors import TrunklineError, did_you_mean
from trunkline.core.manifests.documents import Document, Origin
from trunkline.core.manifests.findings import Findings, Key
from trunkline.core.manifests.kinds import KINDS, PIPELINE_KINDS
from trunkline.core.manifests.models import API_VERSION, Manifest
from trunkline.core.manifests.problems import Problem
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.wording import describe, problems_of
from trunkline.core.manifests.yaml import read_documents, read_files


def load_files(paths: Iterable[Path]) -> Project:
    """The project that manifest files make. Raises `ManifestError` with every problem that the models can see."""
    return _whole(gather_files(paths))


def load_text(text: str, file: str = "<text>") -> Project:
    """The project that a YAML text makes: as `load_files`."""
    return _whole(gather_text(text, file))


def load_documents(documents: Iterable[Document]) -> Project:
    """The project that documents from elsewhere make: as `load_files`."""
    return _whole(gather(documents))


def gather_files(paths: Iterable[Path]) -> Findings:
    """The manifests of files that the models accept, and the problems of the others: the first half of an examination.

    Raises `ConfigurationError` (`manifest.file`) for a path that does not exist, and where there is no manifest at all.
    """
    documents, problems = read_files(list(paths))
    return gather(documents, problems)


def gather_text(text: str, file: str = "<text>") -> Findings:
    """As `gather_files`, for a text."""
    documents, problems = read_documents(text, file)
    return gather(documents, problems)


def gather(documents: Iterable[Document], problems: Iterable[Problem] = ()) -> Findings:
    """As `gather_files`, for documents from elsewhere, and `problems` that kept others from being read."""
    found = Findings(stray=list(problems))
    found.incomplete = bool(found.stray)
    for document in documents:
        _add(document, found)
    return found


def _whole(found: Findings) -> Project:
    found.raise_for_problems()
    return found.project


def _add(document: Document, found: Findings) -> None:
    origin = Origin(document)
    problems: list[Problem] = []
    manifest = _parse(document, origin, problems) if document.legible else None
    known = {problem.field for problem in document.problems}
    problems = [*document.problems, *(problem for problem in problems if problem.field not in known)]
    if manifest is None or problems:
        key = _key_of(document)
        found.incomplete = found.incomplete or key is None or not document.legible
        if key is None:
            found.stray += problems
        for problem in problems if key is not None else ():
            found.blame(key or ("", ""), problem)
        return
    name = manifest.metadata.name
    other = _namesake(found.project, manifest)
    if other is not None:
        where = found.project.origins[other]
        place = f"{where.document.file}:{where.document.line(('metadata', 'name'))}"
        problem = origin.problem(
            ("metadata", "name"), f"the name {name!r} is taken", f"see {place}", "manifest.duplicate"
        )
        found.blame((manifest.kind, name), problem)
        return
    found.project.of_kind(manifest.kind)[name] = manifest
    found.project.origins[manifest.kind, name] = origin


def _key_of(document: Document) -> Key | None:
    """The kind and the name that a document says, whatever else is wrong with it."""
    data = document.data
    metadata = data.get("metadata") if isinstance(data, dict) else None
    name = metadata.get("name") if isinstance(metadata, dict) else None
    kind = data.get("kind") if isinstance(data, dict) else None
    return (kind, name) if isinstance(kind, str) and isinstance(name, str) and kind in KINDS else None


def _parse(document: Document, origin: Origin, problems: list[Problem]) -> Manifest | None:
    data = document.data
    if not isinstance(data, dict):
        message = f"a manifest is a mapping with apiVersion, kind, metadata and spec, found {describe(data)}"
        hint = (
            "separate two manifests with a line `---`, and begin none with `- `"
            if isinstance(data, list)
            else "begin with the line `apiVersion: trunkline/v1`"
        )
        problems.append(origin.problem((), message, hint))
        return None
    kind, version = data.get("kind"), data.get("apiVersion")
    if not isinstance(kind, str) or kind not in KINDS:
        message = "the field 'kind' is missing" if "kind" not in data else f"unknown kind {_shown(kind)}"
        hint = did_you_mean(str(kind), KINDS)
        problems.append(origin.problem(("kind",), message, hint, "manifest.unknown_kind"))
        return None
    if version != API_VERSION:
        message = "the field 'apiVersion' is missing" if version is None else f"unknown apiVersion {_shown(version)}"
        problems.append(origin.problem(("apiVersion",), message, f"write {API_VERSION}"))
        return None
    model = KINDS[kind].model
    try:
        return model.model_validate(data)
    except ValidationError as error:
        problems += problems_of(error, origin, (), model)
    except TrunklineError as error:
        problems.append(origin.problem((), error.message, error.hint, error.code))
    return None


def _namesake(project: Project, manifest: Manifest) -> tuple[str, str] | None:
    name = manifest.metadata.name
    kinds = PIPELINE_KINDS if manifest.kind in PIPELINE_KINDS else (manifest.kind,)
    return next(((kind, name) for kind in kinds if (kind, name) in project.origins), None)


def _shown(value: object) -> str:
    return repr(value[:60]) if isinstance(value, str) else f"({describe(value)})"
