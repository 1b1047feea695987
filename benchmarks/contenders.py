"""Running one contender in a process of its own, until it has committed everything, and taking its CPU time and memory."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, TopicPartition

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process used: CPU seconds, and its largest resident size in MiB."""

    cpu: float
    rss: float


def usage(pid: int) -> Usage:
    """The usage of a process and its children until now (Linux: /proc)."""
    cpu = rss = 0.0
    for one in _tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            cpu += (int(fields[11]) + int(fields[12])) / TICKS
            status = Path(f"/proc/{one}/status").read_text()
        except OSError:
            continue
        rss += next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0.0)
    return Usage(cpu, rss)


def _tree(pid: int) -> list[int]:
    found = [pid]
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            for child in children.read_text().split():
                found += _tree(int(child))
        except OSError:
            continue
    return found


def run_until_committed(
    command: Sequence[str],
    env: dict[str, str],
    log: Path,
    *,
    bootstrap: str,
    group: str,
    topic: str,
    count: int,
    timeout: float,
) -> Usage:
    """Runs a command until its group has committed all of a topic, then ends it. Raises SystemExit with its log when it fails."""
    # Not the administrator's call: it may end the process while the coordinator is not ready (librdkafka#5040).
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": group})
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env})
        try:
            deadline = time.monotonic() + timeout
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    raise SystemExit(f"{command[0]} ended with {process.returncode}:\n{log.read_text()[-2000:]}")
                if _committed(consumer, topic) >= count:
                    return usage(process.pid)
                time.sleep(0.1)
            raise SystemExit(f"{' '.join(command)} did not come to an end in {timeout:g} s:\n{log.read_text()[-2000:]}")
        finally:
            consumer.close()
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _committed(consumer: Consumer, topic: str) -> int:
    try:
        found = consumer.list_topics(topic, timeout=6).topics[topic]
        parts = [TopicPartition(topic, number) for number in found.partitions]
        return sum(max(part.offset, 0) for part in consumer.committed(parts, timeout=6))
    except KafkaException:
        return 0
