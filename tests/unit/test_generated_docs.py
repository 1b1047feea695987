"""The generated pages are those that the code would generate now, and the editors' schema hangs together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.docs import pages, write
from tools.editorschema import manifest_schema
from trunkline.core.manifests.kinds import KINDS
from trunkline.core.metrics import TABLE
from trunkline.core.plugins import plugin_names

DOCS = Path(__file__).parents[2] / "docs"
PAGES = pages()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_the_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).exists(), "run `make docs`"
    assert (DOCS / name).read_text(encoding="utf-8") == PAGES[name], "run `make docs`"


def test_no_page_of_a_plug_in_that_is_gone_is_left() -> None:
    assert {f"connectors/{page.name}" for page in (DOCS / "connectors").iterdir()} == {
        name for name in PAGES if name.startswith("connectors/")
    }


def test_writing_again_changes_nothing(tmp_path: Path) -> None:
    assert {str(path.relative_to(tmp_path)) for path in write(tmp_path)} == set(PAGES)
    assert write(tmp_path) == []


def test_every_metric_has_its_row() -> None:
    for row in TABLE:
        assert f"| `{row.name}` | {row.kind} |" in PAGES["reference/metrics.md"]


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        mapping = (
            node.get("discriminator", {}).get("mapping", {}) if isinstance(node.get("discriminator"), dict) else {}
        )
        yield from mapping.values()
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)


def test_every_reference_of_the_editors_schema_leads_somewhere() -> None:
    schema = manifest_schema()
    known = {f"#/$defs/{name}" for name in schema["$defs"]}
    assert set(_references(schema)) <= known


def test_the_editors_schema_knows_each_kind_and_each_plug_in() -> None:
    schema = manifest_schema()
    defs = schema["$defs"]
    assert schema["properties"]["kind"]["enum"] == list(KINDS)
    for kind in ("source", "sink"):
        conditions = defs[kind.capitalize()]["allOf"]
        named = [one["if"]["properties"]["spec"]["properties"]["connector"]["const"] for one in conditions]
        assert named == plugin_names(kind)  # type: ignore[arg-type]
    assert set(plugin_names("step")) <= set(defs["StepSpec"]["properties"])
