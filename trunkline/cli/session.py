"""How a command finds its cluster, its registry and its worker.

The broker is the one that `--bootstrap` names, else the embedded one that runs in the home folder. How to sign in to an embedded
one is found in its folder. The registry is the one that `--registry` names, else that of the worker which runs in the home folder, else
one served for the command's own time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trunkline.cli.output import Output
from trunkline.core.errors import UnavailableError

if TYPE_CHECKING:
    from trunkline.bus.kafka import KafkaSettings
    from trunkline.bus.names import Names
    from trunkline.cli.endpoint import Endpoint
    from trunkline.control.cluster import Cluster
    from trunkline.registry.client import RegistryClient

DEFAULT_HOME = ".trunkline"
PING_SECONDS = 5.0
REGISTRY_PREFIX = "TRUNKLINE_REGISTRY_"
_REGISTRY_OPTIONS = {
    "basic.auth.user.info",
    "bearer.auth.token",
    "ssl.ca.location",
    "ssl.certificate.location",
    "ssl.key.location",
    "timeout",
}


@dataclass(slots=True)
class Session:
    """One command's surroundings."""

    out: Output = field(default_factory=Output)
    home_option: str | None = None
    bootstrap_option: str | None = None
    registry_option: str | None = field(default=None, repr=False)
    """It may hold a password."""
    namespace_option: str | None = None
    told: KafkaSettings | None = None
    """What a worker's supervisor told it of Kafka."""

    @property
    def home(self) -> Path:
        """The folder that keeps broker data, worker ids and scratch files."""
        return Path(self.home_option or os.environ.get("TRUNKLINE_HOME") or DEFAULT_HOME)

    @property
    def bootstrap(self) -> str | None:
        """The bootstrap servers that were named, if any."""
        return self.bootstrap_option or os.environ.get("TRUNKLINE_BOOTSTRAP_SERVERS") or None

    @property
    def registry_url(self) -> str | None:
        """The registry's URL that was named, if any."""
        return self.registry_option or os.environ.get("TRUNKLINE_REGISTRY_URL") or None

    def names(self) -> Names:
        """The names of the namespace."""
        from trunkline.bus.names import Names

        return Names(self.namespace_option) if self.namespace_option is not None else Names.from_environment()

    def kafka(self) -> KafkaSettings:
        """The cluster, known to answer. Raises `UnavailableError` where none was named and none runs, or it can't be used."""
        from trunkline.bus.kafka import KafkaUnusableError, ping

        settings = self.kafka_settings()
        self.names()  # a wrong namespace is said at once, not after a broker was waited for
        try:
            ping(settings, PING_SECONDS)
        except KafkaUnusableError as error:
            if self.bootstrap is not None or not error.passes:
                raise
            from trunkline.bus.embedded import broker_trouble

            raise broker_trouble(self.home) or UnavailableError(
                error.message,
                hint=f"this is the embedded broker of {self.home}: its process is there, but may be starting, ending or held up; "
                "ask again, or end the command that runs it and start it anew",
                code=error.code,
            ) from error
        return settings

    def kafka_settings(self) -> KafkaSettings:
        """As `kafka`, without asking the cluster."""
        from trunkline.bus.embedded import broker_trouble, find_at, find_running
        from trunkline.bus.kafka import KafkaSettings

        if self.told is not None:
            return self.told
        if self.bootstrap is not None:
            named = KafkaSettings.from_environment(self.bootstrap)
            embedded = None if _signs_in(named) else find_at(self.bootstrap)
            # An embedded one, named by its address, asks who is there all the same.
            return named if embedded is None else replace(named, options={**embedded.client_options, **named.options})
        running = find_running(self.home.resolve())
        if running is None:
            raise broker_trouble(self.home) or UnavailableError(
                f"no broker was named and none runs in {self.home}",
                hint="start one with `trunkline up`, or name one by --bootstrap or TRUNKLINE_BOOTSTRAP_SERVERS",
                code="kafka.none",
            )
        return KafkaSettings(running.bootstrap, running.client_options)

    def cluster(self, kafka: KafkaSettings | None = None) -> Cluster:
        """What the services are given. Without `kafka`, raises as `kafka()` does."""
        from trunkline.control.cluster import Cluster

        settings = kafka or self.kafka()
        return Cluster(settings, self.names(), user(), lambda: self.registry(settings))

    def endpoint(self) -> Endpoint | None:
        """The worker that runs in the home folder on this session's cluster and namespace, if one does."""
        from trunkline.cli.endpoint import read_endpoint

        found = read_endpoint(self.home)
        if found is None or found.namespace != self.names().namespace:
            return None
        return found if self.bootstrap is None or self.bootstrap == found.bootstrap else None

    def known_registry(self) -> str | None:
        """The URL of the registry that was named, else of the one that the worker in the home folder serves, if one does."""
        if self.registry_url is not None:
            return self.registry_url
        endpoint = self.endpoint()
        return endpoint.registry if endpoint is not None else None

    def registry_options(self) -> Mapping[str, Any]:
        """Options of the registry's client: `TRUNKLINE_REGISTRY_BASIC_AUTH_USER_INFO` sets `basic.auth.user.info`. To the registry of the
        worker in the home folder a client signs in with that worker's key, in the name of the person who asks.

        Secrets among them are `Secret`s.
        """
        from trunkline.core.secret import guarded

        endpoint = self.endpoint() if self.registry_url is None else None
        if endpoint is not None and endpoint.key and endpoint.registry.startswith(endpoint.local):
            return guarded({"basic.auth.user.info": f"{user()}:{endpoint.key}"})
        found = {}
        for name, value in os.environ.items():
            option = name.removeprefix(REGISTRY_PREFIX).lower().replace("_", ".")
            if name.startswith(REGISTRY_PREFIX) and option in _REGISTRY_OPTIONS:
                found[option] = value
        return guarded(found)

    @contextlib.contextmanager
    def registry(self, kafka: KafkaSettings | None = None) -> Iterator[RegistryClient]:
        """The schema registry. Without one that was named or runs, one is served from its topic while the command lasts."""
        from trunkline.control.registryserver import serving_registry
        from trunkline.registry.client import RegistryClient

        url = self.known_registry()
        with contextlib.ExitStack() as stack:
            if url is None:
                url = stack.enter_context(serving_registry(kafka or self.kafka(), self.names(), user()))
            client = RegistryClient(url, self.registry_options())
            stack.callback(client.close)
            yield client


def _signs_in(kafka: KafkaSettings) -> bool:
    """Whether somebody chose how to sign in, or not to."""
    return any(name.startswith("sasl.") or name == "security.protocol" for name in kafka.options)


def user() -> str:
    """Who asks, for the record of wishes and changes: the user of the operating system."""
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"
