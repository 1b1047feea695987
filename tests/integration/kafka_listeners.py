"""One broker with a listener for each way in which Kafka can refuse a client, and the certificates that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.certificates import issue
from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions
from trunkline.bus.embedded.options import ScramOptions
from trunkline.bus.embedded.ports import choose_ports, new_ports
from trunkline.bus.kafka import KafkaSettings

PASSWORD = "Straße-7 correct horse"
USER = "admin"
UNKNOWN_HOST = "broker-7.invalid"
_TLS = {"TLS": "good", "MUTUAL": "good", "EXPIRED": "expired", "MISNAMED": "misnamed"}
"""TLS listeners, and the certificate that each shows."""
_OTHERS = ("OPEN", "LOST")


class ManyListeners:
    """A broker whose listeners differ: CLIENT asks for SCRAM-SHA-512, OPEN for nothing, TLS, MUTUAL, EXPIRED and MISNAMED are TLS

    ones, and LOST gives clients an address of the broker that does not exist.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        authority, stranger = issue("authority"), issue("another authority")
        self.authority, self.stranger = home / "authority.pem", home / "stranger.pem"
        self.authority.write_text(authority.pem)
        self.stranger.write_text(stranger.pem)
        client = issue("client", authority)
        self.client_certificate, self.client_key = home / "client.pem", home / "client.key"
        self.client_certificate.write_text(client.pem)
        self.client_key.write_text(client.key_pem)
        certificates = {
            "good": issue("broker", authority),
            "expired": issue("broker", authority, days=-1),
            "misnamed": issue("broker", authority, host="kafka.example.com"),
        }
        for name, one in certificates.items():
            (home / f"{name}.pem").write_text(one.key_pem + one.pem + authority.pem)
        self._ports = dict(zip((*_TLS, *_OTHERS), new_ports(len(_TLS) + len(_OTHERS)), strict=True))
        self.broker = EmbeddedKafka(home, self._options())

    def _options(self) -> EmbeddedOptions:
        kafka = self.home / "kafka"
        kafka.mkdir(exist_ok=True)
        own = choose_ports(kafka / "ports.json")
        usual = f"CLIENT://127.0.0.1:{own.client},INTERNAL://127.0.0.1:{own.internal}"
        self._ports["CLIENT"] = own.client
        hosts = {name: UNKNOWN_HOST if name == "LOST" else "127.0.0.1" for name in (*_TLS, *_OTHERS)}
        protocols = dict.fromkeys(_TLS, "SSL") | dict.fromkeys(_OTHERS, "PLAINTEXT")
        protocols |= dict.fromkeys(("CLIENT", "INTERNAL", "CONTROLLER"), "SASL_PLAINTEXT")
        overrides = {
            "listeners": ",".join(
                [
                    usual,
                    f"CONTROLLER://127.0.0.1:{own.controller}",
                    *(f"{name}://127.0.0.1:{self._ports[name]}" for name in hosts),
                ]
            ),
            "advertised.listeners": ",".join(
                [usual, *(f"{name}://{host}:{self._ports[name]}" for name, host in hosts.items())]
            ),
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "super.users": f"User:trunkline-internal;User:{USER};User:ANONYMOUS",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority),
        }
        for name, certificate in _TLS.items():
            prefix = f"listener.name.{name.lower()}.ssl"
            overrides |= {
                f"{prefix}.keystore.type": "PEM",
                f"{prefix}.keystore.location": str(self.home / f"{certificate}.pem"),
                f"{prefix}.client.auth": "required" if name == "MUTUAL" else "none",
            }
        return EmbeddedOptions(scram=ScramOptions(USER, PASSWORD), authorizer=True, overrides=overrides)

    def address(self, listener: str) -> str:
        """Host and port of a listener."""
        return f"127.0.0.1:{self._ports[listener]}"

    def settings(self, listener: str, options: Mapping[str, str] | None = None) -> KafkaSettings:
        """The settings of a client of a listener."""
        return KafkaSettings(self.address(listener), options or {})


def scram(username: str = USER, password: str = PASSWORD, **more: str) -> dict[str, str]:
    """The options of a client that signs in; `sasl_mechanism="PLAIN"` stands for `sasl.mechanism`."""
    options = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": username,
        "sasl.password": password,
    }
    return options | {name.replace("_", "."): value for name, value in more.items()}
