"""Writes the generated pages: `python -m tools.docs docs/`."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tools.editorschema import manifest_schema
from tools.licences import licences_page
from tools.reference import cli_page, connectors_page, manifests_page, metrics_page
from trunkline.core.docs import markdown
from trunkline.core.plugins import GROUPS, load_plugin, plugin_names

OWN_PACKAGES = ("connectors", "streams", "sinks")
INVARIANT_ROW = re.compile(r"^\| (I(?:-R)?\d+) \|.*\|$", re.MULTILINE)
PLACE = re.compile(r"`(trunkline/[\w/]+\.py)(?::\d+)?`")


def pages() -> dict[str, str]:
    """Every generated page by its path below the folder of the documentation. Plug-ins of other packages have pages elsewhere."""
    found = {}
    for kind in GROUPS:
        for name in plugin_names(kind):
            plugin = load_plugin(kind, name)
            if plugin.__module__.split(".", 1)[0] in OWN_PACKAGES:
                found[f"connectors/{kind}-{name}.md"] = markdown(kind, name, plugin)
    found["connectors/README.md"] = connectors_page()
    found["reference/metrics.md"] = metrics_page()
    found["reference/manifests.md"] = manifests_page()
    found["reference/manifest.schema.json"] = json.dumps(manifest_schema(), indent=2, ensure_ascii=False) + "\n"
    found["reference/cli.md"] = cli_page()
    found["reference/licences.md"] = licences_page()
    return found


def with_lines(text: str, root: Path) -> str:
    """The table of invariants, with the line in each module that keeps one: where the comment with its number stands."""

    def row(found: re.Match[str]) -> str:
        number = re.compile(rf"\b{found[1]}:")

        def place(module: re.Match[str]) -> str:
            lines = (root / module[1]).read_text(encoding="utf-8").splitlines()
            return f"`{module[1]}:{next((at for at, line in enumerate(lines, 1) if number.search(line)), 0)}`"

        return PLACE.sub(place, found[0])

    return INVARIANT_ROW.sub(row, text)


def write(folder: Path) -> list[Path]:
    """Writes every page whose text changed; the paths of those."""
    written = []
    found, page = pages(), folder / "architecture.md"
    if page.exists():
        found[page.name] = with_lines(page.read_text(encoding="utf-8"), folder.parent)
    for name, text in found.items():
        path = folder / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            written.append(path)
    return written


def main() -> None:
    """Writes into the folder that the command line names, `docs` without one."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "docs")
    for path in write(folder):
        sys.stdout.write(f"wrote {path}\n")


if __name__ == "__main__":
    main()
