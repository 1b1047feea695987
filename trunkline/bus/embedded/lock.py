"""Write `jars.lock` anew: `python -m trunkline.bus.embedded.lock`.

Resolves Kafka's dependencies from Maven Central and notes the checksum of each jar as it came. Whoever runs this after a
change of version compares the diff with what Apache publishes.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from trunkline.bus.embedded.jars import LOCK_FILE, fetch, sha256_of
from trunkline.bus.embedded.options import KAFKA_VERSION

#: Kafka's server names no logging backend as a dependency; log4j is what its own distribution ships.
LOG4J_VERSION = "2.25.4"
ROOTS = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}",
    f"org.apache.logging.log4j:log4j-core:{LOG4J_VERSION}",
    f"org.apache.logging.log4j:log4j-slf4j-impl:{LOG4J_VERSION}",
)


def resolve(repository: Path) -> list[str]:
    """The coordinates of all jars that `ROOTS` need at run time, sorted."""
    from jgo.maven import MavenContext, PythonResolver

    context = MavenContext(resolver=PythonResolver(), repo_cache=repository, local_repos=[])
    # "!" keeps a root from acting as a bill of materials: log4j's parent would pin its own versions of Kafka and Jackson.
    wanted, needed = context.resolver.resolve([context.create_dependency(f"{root}!") for root in ROOTS])
    kept = [*wanted, *(one for one in needed if one.scope in ("compile", "runtime") and not one.optional)]
    return sorted({f"{one.groupId}:{one.artifactId}:{one.version}" for one in kept})


def main() -> None:
    """Resolve, download into a temporary folder, and write the lock file."""
    lines = [
        f"# Apache Kafka {KAFKA_VERSION}: coordinate, SHA-256, bytes. Made by `python -m trunkline.bus.embedded.lock`."
    ]
    with tempfile.TemporaryDirectory() as folder:
        for coordinate in resolve(Path(folder, "poms")):
            path = fetch(coordinate, Path(folder, "jars"))
            lines.append(f"{coordinate} {sha256_of(path)} {path.stat().st_size}")
            sys.stdout.write(f"{lines[-1]}\n")
    LOCK_FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
