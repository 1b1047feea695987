"""What the org's daily limit leaves to us."""

from __future__ import annotations

import asyncio
import time

from sinks.salesforce.client import SalesforceClient
from sinks.salesforce.outcomes import DAILY
from sinks.salesforce.settings import SalesforceSettings
from trunkline.core.verdicts import Retry


class Headroom:
    """Holds back while more of the org's daily requests are used than `limit_reserve` allows."""

    def __init__(self, client: SalesforceClient, settings: SalesforceSettings) -> None:
        self._client = client
        self._settings = settings
        self._measuring = asyncio.Lock()

    async def missing(self) -> Retry | None:
        """A `Retry` when the limit is nearly used up. What was seen is believed for `limit_pause` seconds.

        Raises as `SalesforceClient.measure_usage` does.
        """
        settings, usage = self._settings, self._client.usage
        if usage is None or usage.share <= settings.limit_reserve:
            return None
        async with self._measuring:
            usage = self._client.usage or usage
            if time.monotonic() >= usage.seen + settings.limit_pause:
                usage = await self._client.measure_usage() or usage
        if usage.share <= settings.limit_reserve:
            return None
        wait = max(0.0, usage.seen + settings.limit_pause - time.monotonic())
        return Retry(
            f"{usage} of the org's daily API requests are used, more than the share of {settings.limit_reserve:g}",
            after=wait,
            code="salesforce.limit_reserve",
            limit=DAILY,
        )
