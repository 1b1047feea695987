"""Whether a registry is still the one that it was: whether the schema ids that a worker uses mean what they did.

Clients keep an id's schema for good, as they may: a registry never gives an id twice. But the registry at a URL can be replaced, or its
store made anew. Then old ids are read rightly from memory, and records that others write now wrongly; after a restart it is the other
way round. Nobody notices, unless somebody asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from trunkline.core.errors import HaltError, RetriableError, TrunklineError
from trunkline.core.log import get_logger
from trunkline.registry.client import RegistryClient
from trunkline.registry.model import SchemaError
from trunkline.registry.schema import Schema

log = get_logger(__name__)
MOST_AT_ONCE: Final = 20
"""Ids that are asked for at one look. A registry that was replaced shows at the first few."""


class RegistryWatch:
    """Compares what a client knows with what the registry says now, some ids at each look."""

    def __init__(self, client: RegistryClient) -> None:
        self._client = client
        self._first: dict[int, str] = {}
        """What the registry said of an id at the first look: it may spell a schema otherwise than who registered it."""
        self._turn = 0

    def look(self) -> TrunklineError | None:
        """One look. Why pipelines must begin anew, and then nothing that was known is believed any more; None where all is as it was.

        Blocks. Raises RetriableError where the registry can't be asked, and what else it says.
        """
        for schema in self._next():
            error = self._compared(schema)
            if error is not None:
                self._first.clear()
                self._client.forget()
                return error
        return None

    def _next(self) -> Iterator[Schema]:
        known = sorted(self._client.known(), key=lambda schema: schema.id or 0)
        for offset in range(min(MOST_AT_ONCE, len(known))):
            yield known[(self._turn + offset) % len(known)]
        self._turn += MOST_AT_ONCE

    def _compared(self, schema: Schema) -> TrunklineError | None:
        schema_id = schema.id or 0
        try:
            text = self._client.text_now(schema_id)
        except SchemaError as error:
            return self._replaced(schema, f"can't be read as a schema: {error}")
        if text is None:
            return self._gone(schema)
        name = Schema(text, strict=False).name
        if name != schema.name:
            return self._replaced(schema, f"is {name}")
        if text != self._first.setdefault(schema_id, text):
            return self._replaced(schema, "has other fields")
        return None

    def _gone(self, schema: Schema) -> TrunklineError | None:
        """What is declared is registered again. What was only read stays known: its records can still be read here."""
        subjects = self._client.registrations(schema)
        for subject in subjects:
            now = self._client.register_again(subject, schema)
            if now == schema.id:
                log.warning("a schema was gone from the registry and is registered again", subject=subject, id=now)
                continue
            if now <= max(one.id or 0 for one in self._client.known()):
                return self._replaced(schema, f"is gone, and the registry gave its schema the id {now}")
            return RetriableError(
                f"the schema of the subject {subject} was gone from the registry at {self._client.name}, and is registered again with the "
                f"id {now} in place of {schema.id}",
                code="registry.renewed",
            )
        return None

    def _replaced(self, schema: Schema, what: str) -> HaltError:
        return HaltError(
            f"the registry at {self._client.name} is another one than before: schema id {schema.id} was {schema.name} and {what}",
            hint="bring the former registry back (its topic _schemas, or its URL), then `trunkline restart --failed`. Without it, records "
            "that were written before would be decoded with whatever schemas have their ids now",
            code="registry.changed",
        )
