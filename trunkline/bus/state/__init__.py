"""What a pipeline remembers: a RocksDB store a partition, whose truth is a compacted changelog topic.

Parking is the first to use it; whatever remembers by key (windows, joins, tables) uses it in the same way. The life of a store:

1. At assignment `Changelog.open` gives the partition's `StateStore`, brought up to the stable end of the changelog.
2. `Changes` over it: puts and deletes that are seen by reads through it and by nobody else.
3. `Changes.records` is what the producer writes to the changelog, in the Kafka transaction with outputs and offsets.
4. After the commit succeeded `Changes.apply` puts the batch into the store, with the changelog offset that it reaches. After
   an abort `Changes.discard` forgets it. After an unknown outcome `Changelog.catch_up` reads what the changelog says.
5. At revoke `StateStore.close`; what is on disk is a checkpoint for the next time.

So state, output and offset never disagree, and losing the disk costs time and nothing else.
"""

from trunkline.bus.state.changelog import Changelog, changelog_config
from trunkline.bus.state.changes import Changes
from trunkline.bus.state.entry import Entry
from trunkline.bus.state.store import Identity, StateStore

__all__ = ["Changelog", "Changes", "Entry", "Identity", "StateStore", "changelog_config"]
