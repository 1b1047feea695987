"""Kafka's settings of a topic, as far as they can be judged without a broker: misspelt names, and values of the wrong form.

The names are those of Kafka 4.3 (https://kafka.apache.org/documentation/#topicconfigs). Other brokers have more, so a name is
refused only where it is nearly one of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from trunkline.core.errors import nearest
from trunkline.core.settings import parse_duration, parse_size

_WORDS = {
    "cleanup.policy": ("compact", "delete"),
    "compression.type": ("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"),
    "message.timestamp.type": ("CreateTime", "LogAppendTime"),
}
_TRUTHS = (
    "preallocate",
    "unclean.leader.election.enable",
    "remote.storage.enable",
    "remote.log.copy.disable",
    "remote.log.delete.on.disable",
)
_MILLISECONDS = (
    "delete.retention.ms",
    "file.delete.delay.ms",
    "flush.ms",
    "local.retention.ms",
    "max.compaction.lag.ms",
    "message.timestamp.after.max.ms",
    "message.timestamp.before.max.ms",
    "min.compaction.lag.ms",
    "retention.ms",
    "segment.jitter.ms",
    "segment.ms",
)
_BYTES = (
    "index.interval.bytes",
    "local.retention.bytes",
    "max.message.bytes",
    "retention.bytes",
    "segment.bytes",
    "segment.index.bytes",
)
_NUMBERS = (
    "compression.gzip.level",
    "compression.lz4.level",
    "compression.zstd.level",
    "flush.messages",
    "min.cleanable.dirty.ratio",
    "min.insync.replicas",
)
_TEXTS = ("follower.replication.throttled.replicas", "leader.replication.throttled.replicas")
_KNOWN = frozenset({*_WORDS, *_TRUTHS, *_MILLISECONDS, *_BYTES, *_NUMBERS, *_TEXTS})
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def config_faults(config: Mapping[str, Any]) -> Iterator[tuple[str, str, str | None]]:
    """The settings that Kafka would refuse: name, what is wrong, and what to write instead."""
    for name, value in config.items():
        if name not in _KNOWN:
            close = _meant(name)
            if close is not None:
                yield name, f"Kafka has no topic setting {name!r}", f"did you mean {close!r}?"
            continue
        fault = _fault(name, str(value).lower() if isinstance(value, bool) else str(value).strip())
        if fault is not None:
            yield name, *fault


def _meant(name: str) -> str | None:
    """The setting that a name is nearly; None for one that is of another broker."""
    spelled = name.replace("_", ".").lower()
    return spelled if spelled in _KNOWN else nearest(name, _KNOWN)


def _fault(name: str, value: str) -> tuple[str, str | None] | None:
    if name in _WORDS:
        wrong = [word for word in value.split(",") if word.strip() not in _WORDS[name]]
        if wrong or (name != "cleanup.policy" and "," in value):
            allowed = ", ".join(_WORDS[name])
            close = nearest(wrong[0].strip(), _WORDS[name]) if wrong else None
            hint = f"did you mean {close!r}?" if close else f"known: {allowed}"
            return f"{name} is one of {allowed}, found {value[:60]!r}", hint
    elif name in _TRUTHS:
        if value not in {"true", "false"}:
            return f"{name} is true or false, found {value[:60]!r}", None
    elif name not in _TEXTS and not _NUMBER.fullmatch(value):
        unit = "milliseconds" if name in _MILLISECONDS else "bytes" if name in _BYTES else "units"
        return f"{name} is a number of {unit}, found {value[:60]!r}", _as_number(name, value)
    return None


def _as_number(name: str, value: str) -> str | None:
    """What `7d` or `10 MB` is as Kafka wants it."""
    try:
        if name in _MILLISECONDS:
            return f"write {int(parse_duration(value) * 1000)}"
        if name in _BYTES:
            return f"write {parse_size(value)}"
    except ValueError:
        pass
    return None
