"""A store of secrets in memory."""

from __future__ import annotations

from collections.abc import Mapping

from trunkline.core.secretstores import SecretStore


class MemoryStore(SecretStore):
    """Holds what it is given. `away` makes it fail, `expires_at` is told with every value, `asked` counts the questions."""

    refresh = 0.0

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = dict(values)
        self.away: Exception | None = None
        self.expires_at: float | None = None
        self.asked = 0

    async def resolve(self, path: str) -> tuple[str, float | None]:
        """See `SecretStore`."""
        self.asked += 1
        if self.away is not None:
            raise self.away
        return self.values[path], self.expires_at
