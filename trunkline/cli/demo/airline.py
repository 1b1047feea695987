"""The airline's system: it posts departures to the bus, signed by Standard Webhooks (https://www.standardwebhooks.com)."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from trunkline.core.errors import RetriableError
from trunkline.core.http import HttpClient, HttpOptions

AT_ONCE = 32
_PATIENCE = 30.0


def new_secret() -> str:
    """A shared secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


def signature(secret: str, message_id: str, timestamp: str, body: bytes) -> str:
    """The value of `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


@dataclass(slots=True)
class Airline:
    """Posts to one address. `answers` counts the statuses it got, `later` how often it was asked to try again."""

    url: str
    secret: str
    answers: Counter[int] = field(default_factory=Counter)
    later: int = 0

    async def post_all(self, client: HttpClient, posts: Sequence[bytes]) -> None:
        """Posts every departure, some at a time."""
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(number: int, body: bytes) -> None:
            async with turns:
                await self.post(client, message_id(number), body, correlation=correlation_id(number))

        async with asyncio.TaskGroup() as group:
            for number, body in enumerate(posts):
                group.create_task(one(number, body))

    async def post(
        self, client: HttpClient, identity: str, body: bytes, *, correlation: str, secret: str | None = None
    ) -> tuple[int, dict[str, object]]:
        """Posts one body, again when the bus asks for patience (503), as senders of webhooks do. Returns status and answer."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            stamp = str(int(time.time()))
            headers = {
                "content-type": "application/json",
                "webhook-id": identity,
                "webhook-timestamp": stamp,
                "webhook-signature": signature(secret or self.secret, identity, stamp, body),
                "x-correlation-id": correlation,
            }
            try:
                answer = await client.request("POST", self.url, headers=headers, content=body)
                status = answer.status
            except RetriableError:
                status = 503
            if status not in {404, 503} or time.monotonic() > deadline:
                self.answers[status] += 1
                found = answer.json() if status < 300 else {}
                return status, found if isinstance(found, dict) else {}
            self.later += 1
            await asyncio.sleep(0.2)


def correlation_id(number: int) -> str:
    """What the airline calls the departure in its own logs."""
    return f"airline-{number:04}"


def message_id(number: int) -> str:
    """The id under which a post is known when it is repeated."""
    return f"msg_{number:04}"


def local_client() -> HttpClient:
    """A client that may reach this machine."""
    return HttpClient(HttpOptions(allow_private=["127.0.0.1"]))
