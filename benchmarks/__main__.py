"""`python -m benchmarks [NAME]...` prints one table each, all of them without a name: those of `TABLES`.

What they report is kept, and docs/performance.md is written from it.
"""

from __future__ import annotations

import argparse
import asyncio

TABLES = (
    "expressions",
    "transform",
    "http",
    "webhook",
    "latency",
    "growth",
    "manifests",
    "files",
    "salesforce",
    "sftp",
)


def main() -> None:
    """Runs what the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("what", nargs="*", help=f"some of {', '.join(TABLES)}; all of them where none is named")
    parser.add_argument("--events", type=int, default=2_000_000, help="orders for `transform`")
    parser.add_argument("--only", help="contenders of `transform`, by name with semicolons between")
    parser.add_argument("--latency", type=int, nargs="+", default=[0, 20], help="milliseconds of the server for `http`")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--minutes", type=int, default=0, help="of load, whose memory `growth` measures; 10 for the full figure"
    )
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

        print("\n## Streams\n", flush=True)
        only = [name.strip() for name in arguments.only.split(";")] if arguments.only else []
        print("\n".join(asyncio.run(transform.run(arguments.events, arguments.rounds, only))))
    if "http" in wanted:
        from benchmarks import http_sink

        print("\n## HTTP sink, 64 in flight\n", flush=True)
        print("\n".join(http_sink.run(arguments.rounds, arguments.latency)))
    if "webhook" in wanted:
        from benchmarks import webhook

        print("\n## Webhook\n", flush=True)
        print("\n".join(webhook.run(arguments.rounds)))
    if "latency" in wanted:
        from benchmarks import latency

        print("\n## Latency, webhook in to HTTP out\n", flush=True)
        print("\n".join(latency.run()))
    if "growth" in wanted:
        from benchmarks import growth

        print("\n## What growth costs\n", flush=True)
        print("\n".join(growth.run(arguments.minutes)))
    if "manifests" in wanted:
        from benchmarks import manifests

        print("\n## A thousand manifests beside a running bus\n", flush=True)
        print("\n".join(manifests.run()))
    if "files" in wanted:
        from benchmarks import files

        print("\n## File source\n", flush=True)
        print("\n".join(asyncio.run(files.run(arguments.rounds))))
    if "salesforce" in wanted:
        from benchmarks import salesforce

        print("\n## Salesforce sink\n", flush=True)
        print("\n".join(asyncio.run(salesforce.run(arguments.rounds))))
    if "sftp" in wanted:
        from benchmarks import sftp

        print("\n## SFTP sink\n", flush=True)
        print("\n".join(asyncio.run(sftp.run(arguments.rounds))))
    from benchmarks import report

    print(f"\nwrote {report.write()}")


if __name__ == "__main__":
    main()
