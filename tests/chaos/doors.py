"""Webhook sources in worker processes, and senders that sign: what the rows about requests knock at."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
from confluent_kafka import Message

from tests.chaos import gather
from tests.chaos.faults.processes import Fleet
from tests.chaos.history import Effect
from tests.integration.bus_harness import topic_manifest, unframed
from tests.unit.connectors.webhook_requests import SECRET, WHSEC, generic, github, slack, standard, stripe
from trunkline.bus.kafka import KafkaSettings
from trunkline.bus.names import Names
from trunkline.cli.endpoint import read_endpoint
from trunkline.core.contracts import Request

EVENT: dict[str, Any] = {
    "type": "record",
    "name": "Delivery",
    "namespace": "chaos",
    "fields": [{"name": "id", "type": "string"}, {"name": "padding", "type": "string", "default": ""}],
}
Sign = Callable[..., Request]


@dataclass(frozen=True, slots=True)
class Provider:
    """How one kind of sender signs. `timed`: a timestamp is signed as well; `named`: an id in the headers, too."""

    name: str
    verify: str
    sign: Sign
    secret: str = SECRET
    timed: bool = True
    named: bool = False

    def request(self, identity: str, *, secret: str | None = None, age: float = 0.0) -> Request:
        """The signed request of a delivery, as of `age` seconds ago."""
        body, secret = body_of(identity), secret or self.secret
        if not self.timed:
            return self.sign(body, secret=secret)
        more = {"message_id": identity} if self.named else {}
        return self.sign(body, int(time.time() - age), secret=secret, **more)


PROVIDERS = {
    one.name: one
    for one in (
        Provider("github", "provider: github", github, timed=False),
        Provider("slack", "provider: slack", slack),
        Provider("stripe", "provider: stripe", stripe),
        Provider("standard", "provider: standard_webhooks", standard, WHSEC, named=True),
        Provider(
            "generic",
            "provider: hmac, header: X-Sig, algorithm: sha512, prefix: v=, signed: '{timestamp}.{id}.{body}', "
            "timestamp_header: X-Time, id_header: X-Id",
            generic,
            named=True,
        ),
    )
}


def body_of(identity: str) -> bytes:
    """The body of a delivery."""
    return json.dumps({"id": identity}).encode()


class Doors:
    """A project of webhook sources, each with a topic of its own, and the workers that serve it.

    `doors` maps a source's name to its provider and the environment variables that hold its secrets.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        names: Names,
        folder: Path,
        doors: Mapping[str, tuple[Provider, tuple[str, ...]]],
        secrets: Mapping[str, str],
        *,
        workers: int = 1,
        memory: str = "256MiB",
    ) -> None:
        self.kafka, self.names, self._folder, self._count = kafka, names, folder, workers
        self.names_of_doors = list(doors)
        folder.mkdir(parents=True, exist_ok=True)
        project = folder / "project.yaml"
        project.write_text("\n".join(self._manifests(name, *door) for name, door in doors.items()), encoding="utf-8")
        self.fleet = Fleet(
            kafka.bootstrap,
            names.namespace,
            project,
            folder,
            count=workers,
            arguments=["--memory", memory],
            environment=secrets,
        )

    def topic(self, door: str) -> str:
        """Where a source publishes."""
        return f"{self.names.namespace}.{door}"

    def _manifests(self, name: str, provider: Provider, variables: tuple[str, ...]) -> str:
        secrets = ", ".join(f'"${{env:{one}}}"' for one in variables)
        return (
            topic_manifest(self.topic(name), schema=EVENT)
            + f"""---
apiVersion: trunkline/v1
kind: Source
metadata: {{name: {name}}}
spec:
  connector: webhook
  config: {{path: /hooks/{name}, verify: {{{provider.verify}, secrets: [{secrets}]}}}}
  to: {{topic: "{self.topic(name)}"}}
"""
        )

    def url(self, number: int = 0) -> str:
        """Where a worker listens; empty while it does not."""
        found = read_endpoint(self._folder / f"worker-{number}")
        return found.ingress if found is not None else ""

    async def until_open(self, seconds: float = 120.0) -> list[str]:
        """Waits until every worker judges requests at every door (one without a signature is refused), and gives the URLs."""
        deadline = time.monotonic() + seconds
        left = [(number, door) for number in range(self._count) for door in self.names_of_doors]
        async with aiohttp.ClientSession() as session:
            while left:
                number, door = left[0]
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    url = self.url(number)
                    if url:
                        async with session.post(f"{url}/hooks/{door}", timeout=aiohttp.ClientTimeout(10)) as answer:
                            if answer.status == 401:
                                left.pop(0)
                                continue
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{door} of worker {number} does not listen\n{self.fleet.logs[-6000:]}")
                self.fleet.revive()
                await asyncio.sleep(0.1)
        return [self.url(number) for number in range(self._count)]

    def published(self, door: str) -> Iterator[Effect]:
        """What a door's topic has, as the effects of the door's route."""
        return gather.published(self.kafka, self.topic(door), f"{door}-topic", event_id)

    def memory(self, field: str = "VmHWM", number: int = 0) -> float:
        """MiB of a worker by a field of its status (proc_pid_status(5)); VmHWM is the most it ever had."""
        status = Path(f"/proc/{self.fleet.pid(number)}/status").read_text(encoding="ascii", errors="replace")
        line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
        return int(line.split()[1]) / 1024

    def forget_peak(self, number: int = 0) -> None:
        """VmHWM counts from now on (5 in clear_refs, proc_pid_clear_refs(5))."""
        Path(f"/proc/{self.fleet.pid(number)}/clear_refs").write_text("5", encoding="ascii")


def event_id(message: Message) -> str:
    """The id of the delivery in a record."""
    value = message.value()
    assert isinstance(value, bytes)
    found: str = unframed(value, EVENT)["id"]
    return found
