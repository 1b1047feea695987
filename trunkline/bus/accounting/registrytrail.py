"""The registry's changes in the audit trail, in the registry's own transactions."""

from __future__ import annotations

import time
from collections.abc import Sequence

from trunkline.bus.accounting.audit import PARTITION, Chain, Entry
from trunkline.bus.names import Names
from trunkline.registry.changes import Change, Extra

EVERY_SUBJECT = "every subject"


class RegistryTrail:
    """Makes entries of what a store of the registry writes. See `Auditor`; belongs to the store's writing thread."""

    def __init__(self, names: Names) -> None:
        self._topic = names.audit
        self._chain = Chain()

    def begin(self) -> None:
        """See `Auditor.begin`."""
        self._chain = Chain()

    def records(self, changes: Sequence[Change]) -> Sequence[Extra]:
        """See `Auditor.records`."""
        made = []
        for one in changes:
            details = {"before": one.before, "after": one.after}
            subject = f"Subject/{one.subject}" if one.subject is not None else EVERY_SUBJECT
            entry = Entry(time.time(), one.by, one.action, "", details, subject=subject)
            made.append(Extra(self._topic, PARTITION, entry.key, self._chain.value(entry)))
        return made
