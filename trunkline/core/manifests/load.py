"""Loading: from YAML texts, files and what is applied to a project, with the problems that the models can see."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from trunkline.core.errors import TrunklineError, did_you_mean
from trunkline.core.manifests.findings import Findings, Key
from trunkline.core.manifests.kinds import KINDS, PIPELINE_KINDS
from trunkline.core.manifests.models import API_VERSION, Manifest
from trunkline.core.manifests.problems import Origin, Problem, problems_of
from trunkline.core.manifests.project import Project
from trunkline.core.manifests.yaml import Document, read_documents, read_files


def load_files(paths: Iterable[Path]) -> Project:
    """The project that manifest files make. Raises `ManifestError` with every problem that the models can see."""
    return load_documents(read_files(list(paths)))


def load_text(text: str, file: str = "<text>") -> Project:
    """The project that a YAML text makes: as `load_files`."""
    return load_documents(read_documents(text, file))


def load_documents(documents: Iterable[Document]) -> Project:
    """The project that documents from elsewhere make: as `load_files`."""
    found = gather(documents)
    found.raise_for_problems()
    return found.project


def gather(documents: Iterable[Document]) -> Findings:
    """The manifests that the models accept, and the problems of the others: the first half of an examination."""
    found = Findings()
    for document in documents:
        _add(document, found)
    return found


def _add(document: Document, found: Findings) -> None:
    origin = Origin(document)
    problems: list[Problem] = []
    manifest = _parse(document, origin, problems)
    if manifest is None:
        key = _key_of(document)
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
        problems.append(origin.problem((), "a manifest is a mapping with apiVersion, kind, metadata and spec"))
        return None
    kind = data.get("kind")
    if kind not in KINDS:
        problems.append(
            origin.problem(("kind",), f"unknown kind {kind!r}", did_you_mean(str(kind), KINDS), "manifest.unknown_kind")
        )
        return None
    if data.get("apiVersion") != API_VERSION:
        problems.append(
            origin.problem(("apiVersion",), f"unknown apiVersion {data.get('apiVersion')!r}", f"write {API_VERSION}")
        )
        return None
    model = KINDS[str(kind)].model
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
