"""Who a worker is: its id and its ports, which a restart finds again."""

from __future__ import annotations

import fcntl
import io
import uuid
from pathlib import Path

from trunkline.core.errors import UnavailableError
from trunkline.core.serving.listener import Ports

SLOTS = 1000


class WorkerIdentity:
    """The worker's own id, kept in its data folder so that a restart has the same transactional ids.

    Several workers in one folder take one slot each. Raises `UnavailableError` (`worker.slots`) where none is free.
    """

    def __init__(self, home: Path) -> None:
        folder = home / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock: io.TextIOWrapper | None = None
        for slot in range(SLOTS):
            file = (folder / f"{slot}").open("a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            file.seek(0)
            self.id = file.read().strip()
            if not self.id:
                self.id = uuid.uuid4().hex[:12]
                file.write(self.id)
                file.flush()
            self._lock = file
            self.ports = Ports(folder / f"{slot}.ports")
            return
        raise UnavailableError(f"{folder} has no free slot for another worker", code="worker.slots")

    def release(self) -> None:
        """Frees the slot."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None
