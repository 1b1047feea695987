"""Writes the generated pages: `python -m trunkline.cli.docs docs/`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from trunkline.cli.editorschema import manifest_schema
from trunkline.cli.reference import cli_page, connectors_page, manifests_page, metrics_page
from trunkline.core.docs import markdown
from trunkline.core.plugins import GROUPS, load_plugin, plugin_names

OWN_PACKAGES = ("connectors", "streams", "sinks")


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
    return found


def write(folder: Path) -> list[Path]:
    """Writes every page whose text changed; the paths of those."""
    written = []
    for name, text in pages().items():
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
