"""The audit trail: who decided what, when, why, and what it was before. An append-only topic of one partition that never expires.

A decision and its effect belong together: whoever writes the effect in a transaction writes its entry with the same producer, inside it.
Writers chain their entries, and seals over all of them make it evident where the topic was tampered with (docs/adr/0031).
"""

from trunkline.bus.accounting.audit.chain import SEAL_KEY, Chain, Recorded, Seal, UnreadableRecordError, hash_of, parse
from trunkline.bus.accounting.audit.entry import Entry, brief
from trunkline.bus.accounting.audit.reading import PARTITION, entries, place_of, read_tail, records
from trunkline.bus.accounting.audit.trail import Finding, Trail
from trunkline.bus.accounting.audit.writing import announced, append, write, write_seal

__all__ = [
    "PARTITION",
    "SEAL_KEY",
    "Chain",
    "Entry",
    "Finding",
    "Recorded",
    "Seal",
    "Trail",
    "UnreadableRecordError",
    "announced",
    "append",
    "brief",
    "entries",
    "hash_of",
    "parse",
    "place_of",
    "read_tail",
    "records",
    "write",
    "write_seal",
]
