"""`python -m benchmarks [expressions] [transform] [http]`: prints one table each; all of them without arguments."""

from __future__ import annotations

import argparse
import asyncio

TABLES = ("expressions", "transform", "http")


def main() -> None:
    """Runs what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("what", nargs="*", help=f"some of {', '.join(TABLES)}; all of them where none is named")
    parser.add_argument("--events", type=int, default=600_000, help="orders for `transform`")
    parser.add_argument("--latency", type=int, nargs="+", default=[0, 20], help="milliseconds of the server for `http`")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    wanted = arguments.what or list(TABLES)
    if unknown := set(wanted) - set(TABLES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(TABLES)}")
    if "expressions" in wanted:
        from benchmarks import expressions

        print("\n## Expressions\n")
        expressions.main()
    if "transform" in wanted:
        from benchmarks import transform

        print("\n## Streams against the raw loop\n", flush=True)
        print("\n".join(asyncio.run(transform.run(arguments.events, arguments.rounds))))
    if "http" in wanted:
        from benchmarks import http_sink

        print("\n## HTTP sink, 64 in flight\n", flush=True)
        print("\n".join(http_sink.run(arguments.rounds, arguments.latency)))


if __name__ == "__main__":
    main()
