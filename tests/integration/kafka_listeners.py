"""One broker with a listener for each way in which Kafka can refuse a client, and the certificates that go with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tests.certificates import issue
from tests.chaos.faults.proxy import TcpProxy
from tests.integration.token_service import AUDIENCE, CLIENT, TokenService
from trunkline.bus.embedded import EmbeddedKafka, EmbeddedOptions
from trunkline.bus.embedded.options import ScramOptions
from trunkline.bus.embedded.ports import choose_ports, new_ports
from trunkline.bus.embedded.properties import REAUTHENTICATION
from trunkline.bus.kafka import KafkaSettings

PASSWORD = "Straße-7 correct horse"
USER = "admin"
UNKNOWN_HOST = "broker-7.invalid"
_HOST = "127.0.0.1"
_TLS = {
    "TLS": "good",
    "MUTUAL": "good",
    "EXPIRED": "expired",
    "MISNAMED": "misnamed",
    "STRANGE": "strange",
    "SIGNED": "good",
}
"""TLS listeners, and the certificate that each shows."""
_OTHERS = ("OPEN", "LOST", "ASIDE", "PLAIN")
_LOGIN = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{PASSWORD}";'
_TOKENS = "org.apache.kafka.common.security.oauthbearer"


class ManyListeners:
    """A broker whose listeners differ: CLIENT asks for SCRAM-SHA-512, PLAIN for that mechanism, OPEN and ASIDE for nothing.

    TLS, MUTUAL, EXPIRED, MISNAMED and STRANGE (of another authority) are TLS ones, SIGNED asks for PLAIN or SCRAM-SHA-512 over TLS,
    and LOST gives clients an address of the broker that does not exist. TOKENS, which is there with a token service only,
    takes its tokens.

    With `door`, all but LOST and ASIDE tell clients one address, that of a proxy which leads to one of them at a time: to CLIENT first.
    So a worker meets another kind of listener at the address that it has always used.
    """

    def __init__(self, home: Path, *, door: bool = False, tokens: TokenService | None = None) -> None:
        self.home = home
        self._tokens = tokens
        home.mkdir(parents=True, exist_ok=True)
        authority, stranger = issue("authority"), issue("another authority")
        self.authority, self.stranger = home / "authority.pem", home / "stranger.pem"
        self.authority.write_text(authority.pem)
        self.stranger.write_text(stranger.pem)
        clients = {
            "client": issue("client", authority),
            "late": issue("client", authority, days=-1),
            "foreign": issue("client", stranger),
        }
        for name, client in clients.items():
            (home / f"{name}.pem").write_text(client.pem)
            (home / f"{name}.key").write_text(client.key_pem)
        self.client_certificate, self.client_key = home / "client.pem", home / "client.key"
        certificates = {
            "good": issue("broker", authority),
            "expired": issue("broker", authority, days=-1),
            "misnamed": issue("broker", authority, host="kafka.example.com"),
            "strange": issue("broker", stranger),
        }
        for name, one in certificates.items():
            issuer = stranger if name == "strange" else authority
            (home / f"{name}.pem").write_text(one.key_pem + one.pem + issuer.pem)
        self.door: TcpProxy | None = None
        self._told = 0
        """The port of the door."""
        self._has_door = door
        self._others = (*_TLS, *_OTHERS, *(() if tokens is None else ("TOKENS",)))
        self._ports = dict(zip(self._others, new_ports(len(self._others)), strict=True))
        self.broker = EmbeddedKafka(home, self._options())

    def _options(self) -> EmbeddedOptions:
        kafka = self.home / "kafka"
        kafka.mkdir(exist_ok=True)
        own = choose_ports(kafka / "ports.json")
        self._ports["CLIENT"] = own.client
        if self._has_door:
            self.door = TcpProxy((_HOST, own.client))
            self._told = self.door.start()
        internal = f"INTERNAL://{_HOST}:{own.internal}"
        usual = f"CLIENT://{_HOST}:{own.client},{internal}"
        others = self._others
        protocols = dict.fromkeys(_TLS, "SSL") | dict.fromkeys(_OTHERS, "PLAINTEXT")
        protocols |= dict.fromkeys(("CLIENT", "PLAIN", "TOKENS", "INTERNAL", "CONTROLLER"), "SASL_PLAINTEXT")
        protocols["SIGNED"] = "SASL_SSL"
        protocols = {name: one for name, one in protocols.items() if name != "TOKENS" or self._tokens is not None}
        overrides = {
            "listeners": ",".join(
                [
                    usual,
                    f"CONTROLLER://{_HOST}:{own.controller}",
                    *(f"{name}://{_HOST}:{self._ports[name]}" for name in others),
                ]
            ),
            "advertised.listeners": ",".join(
                [internal, *(f"{name}://{self._advertised(name)}" for name in ("CLIENT", *others))]
            ),
            "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
            "super.users": f"User:trunkline-internal;User:{USER};User:ANONYMOUS;User:CN=client;User:{CLIENT}",
            REAUTHENTICATION: "0",
            "listener.name.plain.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.plain.plain.sasl.jaas.config": _LOGIN,
            "listener.name.signed.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            "listener.name.signed.plain.sasl.jaas.config": _LOGIN,
            "listener.name.signed.scram-sha-512.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            ),
            **({} if self._tokens is None else _token_listener(self._tokens)),
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
        return EmbeddedOptions(scram=ScramOptions(USER, PASSWORD), overrides=overrides)

    @property
    def tokens(self) -> TokenService:
        """Where the tokens come from that TOKENS takes."""
        assert self._tokens is not None
        return self._tokens

    def _advertised(self, listener: str) -> str:
        if listener == "LOST":
            return f"{UNKNOWN_HOST}:{self._ports[listener]}"
        return self.address(listener) if listener == "ASIDE" or self.door is None else f"{_HOST}:{self._told}"

    def open_door(self, listener: str) -> str:
        """Has the door lead to a listener, and gives its address."""
        assert self.door is not None
        self.door.lead_to((_HOST, self._ports[listener]))
        return f"{_HOST}:{self._told}"

    def address(self, listener: str) -> str:
        """Host and port of a listener itself."""
        return f"{_HOST}:{self._ports[listener]}"

    def settings(self, listener: str, options: Mapping[str, str] | None = None) -> KafkaSettings:
        """The settings of a client of a listener."""
        return KafkaSettings(self.address(listener), options or {})


def _token_listener(tokens: TokenService) -> dict[str, str]:
    """A broker takes keys from an address only where its JVM is told that it may: see `allowing_keys`."""
    prefix = "listener.name.tokens"
    return {
        f"{prefix}.sasl.enabled.mechanisms": "OAUTHBEARER",
        f"{prefix}.oauthbearer.sasl.jaas.config": f"{_TOKENS}.OAuthBearerLoginModule required;",
        f"{prefix}.oauthbearer.sasl.server.callback.handler.class": f"{_TOKENS}.OAuthBearerValidatorCallbackHandler",
        f"{prefix}.oauthbearer.sasl.oauthbearer.jwks.endpoint.url": f"{tokens.url}/keys",
        f"{prefix}.oauthbearer.sasl.oauthbearer.expected.audience": AUDIENCE,
        f"{prefix}.oauthbearer.sasl.oauthbearer.expected.issuer": tokens.url,
        f"{prefix}.oauthbearer.connections.max.reauth.ms": "60000",
    }


def allowing_keys(tokens: TokenService) -> tuple[str, str]:
    """The variable by which a JVM that starts is allowed to take the keys of a token service."""
    return "JDK_JAVA_OPTIONS", f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={tokens.url}/keys"


def scram(username: str = USER, password: str = PASSWORD, **more: str) -> dict[str, str]:
    """The options of a client that signs in; `sasl_mechanism="PLAIN"` stands for `sasl.mechanism`."""
    options = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": username,
        "sasl.password": password,
    }
    return options | {name.replace("_", "."): value for name, value in more.items()}
