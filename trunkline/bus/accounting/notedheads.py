"""Heads of the audit trail that were noted outside of Kafka, on the disk of whoever runs workers or commands.

A topic can't show by itself that its end was cut, or that all of it was written anew. A head that was noted before shows it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson
from confluent_kafka import KafkaException

from trunkline.bus.accounting.audit import hash_of, records
from trunkline.bus.kafka import KafkaSettings, translate
from trunkline.bus.names import Names
from trunkline.bus.topics import topic_identities
from trunkline.core.log import get_logger

log = get_logger(__name__)
FILE: Final = "audit-heads.json"
TIMEOUT: Final = 10.0


@dataclass(frozen=True, slots=True)
class NotedHead:
    """A seal as it was heard of: its hash, number and offset, when it was written (Unix seconds), and in which topic."""

    head: str
    seal: int
    offset: int
    at: float
    topic_id: str = ""


class NotedHeads:
    """The file in a home folder, which may know several clusters and namespaces. Blocks; asks the cluster for its id once."""

    def __init__(self, home: Path, settings: KafkaSettings, names: Names) -> None:
        self._file = home / FILE
        self._settings = settings
        self._names = names
        self._place: str | None = None

    def read(self) -> NotedHead | None:
        """What was noted last of this trail; None where nothing was. Raises our error for Kafka's."""
        found = self._all().get(self._key())
        try:
            return NotedHead(**found) if found is not None else None
        except TypeError:
            log.warning("a noted head of the audit trail can't be read", file=str(self._file))
            return None

    def note(self, head: NotedHead) -> NotedHead:
        """Notes a head, and gives it with its topic's id. Where the disk is full, the log has both. Raises our error for Kafka's."""
        key = self._key()
        topic = topic_identities(self._settings, [self._names.audit]).get(self._names.audit)
        made = replace(head, topic_id=topic.id if topic is not None else "")
        try:
            self._write({**self._all(), key: asdict(made)})
        except OSError as error:
            log.warning(
                "the head of the audit trail can't be noted on disk", head=head.head, seal=head.seal, reason=str(error)
            )
        return made

    def broken(self, noted: NotedHead) -> str | None:
        """Why the trail is not the one that the head was noted of; None where it is. Raises our error for Kafka's."""
        settings, names = self._settings, self._names
        with contextlib.closing(records(settings, names, start=noted.offset)) as found:
            there = next(found, None)
        if there is not None and hash_of(there.value) == noted.head:
            return None
        # In a mirrored cluster it stands elsewhere.
        if any(hash_of(one.value) == noted.head for one in records(settings, names)):
            return None
        topic = topic_identities(settings, [names.audit]).get(names.audit)
        if topic is None or (noted.topic_id and topic.id != noted.topic_id):
            return (
                f"{names.audit} was deleted and made anew: its seal {noted.seal} ({noted.head}) was noted, and is gone"
            )
        what = "cut or rewritten" if noted.topic_id else "cut, rewritten, or deleted and made anew"
        return f"{names.audit} was {what}: its seal {noted.seal} ({noted.head}) was noted, and is not there any more"

    def _key(self) -> str:
        if self._place is None:
            try:
                cluster = self._settings.admin().list_topics(self._names.audit, timeout=TIMEOUT).cluster_id
            except KafkaException as error:
                raise translate(error, "the cluster can't be asked for its id") from error
            self._place = f"{cluster}/{self._names.audit}"
        return self._place

    def _all(self) -> dict[str, Any]:
        try:
            found = orjson.loads(self._file.read_bytes())
        except FileNotFoundError:
            return {}
        except (OSError, orjson.JSONDecodeError) as error:
            log.warning("the noted heads of audit trails can't be read", file=str(self._file), reason=str(error))
            return {}
        return found if isinstance(found, dict) else {}

    def _write(self, content: dict[str, Any]) -> None:
        """In the place of what was there, at once: several workers may share the folder."""
        handle, name = tempfile.mkstemp(prefix=FILE, dir=self._file.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(orjson.dumps(content, option=orjson.OPT_INDENT_2))
            Path(name).replace(self._file)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
