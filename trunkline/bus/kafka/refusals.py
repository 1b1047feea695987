"""Why a cluster can't be used, told from what librdkafka says of it.

A call to a cluster that refuses us says only "broker transport failure" or "timed out". The reason is in the words that the client
says beside it (`error_cb`, and its log for connections that were merely closed), such as

    sasl_ssl://kafka.example.com:9093/bootstrap: SSL handshake failed: … certificate verify failed: … (after 3ms in state SSL_HANDSHAKE)

The texts are those of librdkafka 2.x (rdkafka_broker.c, rdkafka_transport.c, rdkafka_ssl.c, rdkafka_sasl.c), which has fewer codes
than reasons.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from confluent_kafka import KafkaError

from trunkline.core.errors import ConfigurationError, TrunklineError, UnavailableError

_ADDRESS: Final = re.compile(r"^(?:\w+://)?(?P<address>[^/\s]+:\d+)/(?P<broker>\w+): (?P<rest>.*)$", re.DOTALL)
_THREAD: Final = re.compile(r"^\[thrd:.*?\]: ")
_STATE: Final = re.compile(
    r" \(after \d+ms in state (?P<state>\w+)(?:, \d+ identical error\(s\) suppressed)?\)$",
)


@dataclass(frozen=True, slots=True)
class Said:
    """What a client said once: of which address, what, and in which state its connection was."""

    code: int
    address: str
    text: str
    state: str = ""
    listed: bool = False
    """Whether the address is one that the cluster itself gave for a broker."""

    @property
    def about_connection(self) -> bool:
        """Whether it may mean that the cluster can't be used: not what is said of a topic or a group."""
        return self.code == KafkaError._ALL_BROKERS_DOWN or _code_of(self) is not None  # noqa: SLF001

    @classmethod
    def of(cls, code: int, line: str) -> Said:
        """Takes a line of librdkafka apart, of its log or of `error_cb`. What has no address has an empty one."""
        line = _THREAD.sub("", line)
        state = _STATE.search(line)
        rest = line[: state.start()] if state else line
        found = _ADDRESS.match(rest)
        return cls(
            code,
            found["address"] if found else "",
            found["rest"] if found else rest,
            state["state"] if state else "",
            found is not None and found["broker"].isdigit(),
        )


@dataclass(frozen=True, slots=True)
class Kind:
    """One reason why a cluster can't be used. `rank` orders them: of several that clients report, the highest tells most."""

    code: str
    says: str
    """What is wrong, with the places {address} and {detail}."""
    hint: str
    rank: int
    passes: bool = False
    """Whether it may end by itself within seconds: a broker that is just starting refuses connections."""


_OPTIONS: Final = "TRUNKLINE_KAFKA_"
KINDS: Final = {
    kind.code: kind
    for kind in (
        Kind(
            "kafka.timeout",
            "the Kafka broker at {address} does not answer: {detail}",
            "something drops or holds the packets: check the port, firewalls and security groups between here and there, "
            "and whether the broker itself is held up",
            10,
            passes=True,
        ),
        Kind(
            "kafka.disconnected",
            "the Kafka broker at {address} closes the connection: {detail}",
            "see the broker's own log; is this the port of a Kafka listener, and does `security.protocol` "
            f"({_OPTIONS}SECURITY_PROTOCOL) say what that listener speaks?",
            20,
            passes=True,
        ),
        Kind(
            "kafka.refused",
            "nothing accepts connections at {address}: {detail}",
            "is the broker running, and is this its port? Without --bootstrap the embedded broker is used",
            30,
            passes=True,
        ),
        Kind(
            "kafka.unknown_host",
            "the name of the Kafka broker {address} can't be resolved: {detail}",
            "check the spelling in --bootstrap or TRUNKLINE_BOOTSTRAP_SERVERS, and the name servers of this machine",
            40,
            passes=True,
        ),
        Kind(
            "kafka.advertised",
            "the cluster answers, but the addresses it gives for its brokers can't be reached, {address} among them: {detail}",
            "a broker tells clients its `advertised.listeners`: they must hold names and ports that can be reached from here",
            45,
            passes=True,
        ),
        Kind(
            "kafka.away",
            "the Kafka broker at {address} has gone away: {detail}",
            "it answered before, so no setting is wrong: see whether it was stopped or restarts; work goes on by itself once it is back",
            46,
            passes=True,
        ),
        Kind(
            "kafka.plaintext_to_tls",
            "the listener at {address} speaks TLS, and we do not: {detail}",
            f"set {_OPTIONS}SECURITY_PROTOCOL to SSL, or to SASL_SSL where clients sign in",
            50,
        ),
        Kind(
            "kafka.tls_to_plaintext",
            "the listener at {address} speaks no TLS, and we do: {detail}",
            f"use the port of its TLS listener, or set {_OPTIONS}SECURITY_PROTOCOL to PLAINTEXT or SASL_PLAINTEXT",
            50,
        ),
        Kind(
            "kafka.tls",
            "TLS with the Kafka broker at {address} fails: {detail}",
            "see the broker's log for the other side of it: versions and ciphers of both sides must overlap",
            60,
        ),
        Kind(
            "kafka.tls_ca",
            "the certificate of the Kafka broker at {address} is not trusted: {detail}",
            f"name the certificate authority that signed it by {_OPTIONS}SSL_CA_LOCATION (a PEM file)",
            61,
        ),
        Kind(
            "kafka.tls_expired",
            "the certificate of the Kafka broker at {address} is not valid at this time: {detail}",
            "renew it on the broker; where its dates are right, correct the clock of this machine",
            62,
        ),
        Kind(
            "kafka.tls_hostname",
            "the certificate of the Kafka broker at {address} is for another name: {detail}",
            "name the broker as its certificate does, or add this name to the certificate (subjectAltName)",
            62,
        ),
        Kind(
            "kafka.tls_client_certificate",
            "the Kafka broker at {address} does not accept our client certificate: {detail}",
            f"set {_OPTIONS}SSL_CERTIFICATE_LOCATION and {_OPTIONS}SSL_KEY_LOCATION to one that the broker trusts and that has not expired",
            62,
        ),
        Kind(
            "kafka.sasl_required",
            "the listener at {address} serves only clients that sign in, and we do not: {detail}",
            f"set {_OPTIONS}SECURITY_PROTOCOL to SASL_SSL or SASL_PLAINTEXT, with {_OPTIONS}SASL_MECHANISM, "
            f"{_OPTIONS}SASL_USERNAME and {_OPTIONS}SASL_PASSWORD; those of an embedded broker of somebody else "
            "are shown there by `trunkline broker client` and `trunkline broker user create`",
            70,
        ),
        Kind(
            "kafka.sasl_unexpected",
            "the listener at {address} has no sign-in, and we try to: {detail}",
            f"use the port of its SASL listener, or set {_OPTIONS}SECURITY_PROTOCOL to PLAINTEXT or SSL",
            70,
        ),
        Kind(
            "kafka.sasl_mechanism",
            "the Kafka broker at {address} does not sign in clients this way: {detail}",
            f"set {_OPTIONS}SASL_MECHANISM to one that the broker supports",
            71,
        ),
        Kind(
            "kafka.authentication",
            "the Kafka broker at {address} refuses our user or password: {detail}",
            f"check {_OPTIONS}SASL_USERNAME and {_OPTIONS}SASL_PASSWORD, and that the broker knows this user; "
            "Kafka does not tell a wrong password from an unknown user",
            72,
        ),
        Kind(
            "kafka.token",
            "no token to sign in to Kafka with can be had: {detail}",
            f"check {_OPTIONS}SASL_OAUTHBEARER_TOKEN_ENDPOINT_URL, the client id and its secret, and that the token service answers; "
            f"one with a certificate of a private authority needs {_OPTIONS}HTTPS_CA_LOCATION; where a token has expired when it comes, "
            "correct the clocks",
            72,
        ),
        Kind(
            "kafka.token_refused",
            "the Kafka broker at {address} refuses our token: {detail}",
            "the broker's own log says why: it wants an audience, an issuer, a key or a scope "
            f"({_OPTIONS}SASL_OAUTHBEARER_SCOPE) that the token does not have, or its clock is wrong",
            72,
        ),
    )
}


_FILES: Final = {
    "ssl.ca.location": "kafka.tls_ca",
    "ssl.ca.pem": "kafka.tls_ca",
    "ssl.certificate.location": "kafka.tls_client_certificate",
    "ssl.certificate.pem": "kafka.tls_client_certificate",
    "ssl.key.location": "kafka.tls_client_certificate",
    "ssl.key.pem": "kafka.tls_client_certificate",
}
"""Options that hold or name what TLS needs."""


_UNANSWERED: Final = ("timed out", "timeout", "no route to host", "network is unreachable", "host is down")


class KafkaUnusableError(UnavailableError):
    """The cluster can't be used, for one of the reasons in KINDS; `since` is the Unix time at which that began."""

    since: float | None = None
    passes = False
    """See `Kind.passes`."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why the cluster at an address can't be used."""

    kind: Kind
    address: str
    detail: str

    @property
    def error(self) -> KafkaUnusableError:
        """As an error that tells a person what to do."""
        text = self.kind.says.format(address=self.address, detail=self.detail)
        error = KafkaUnusableError(text, hint=self.kind.hint, code=self.kind.code)
        error.passes = self.kind.passes
        return error


def refusal(code: str, address: str, detail: str) -> Refusal:
    """One of the KINDS, at an address."""
    return Refusal(KINDS[code], address, detail)


def unusable_options(error: KafkaError, options: Mapping[str, Any]) -> TrunklineError:
    """Our error where no client can be made: a file that can't be read is missing around us, anything else is a wrong setting."""
    text = error.str()
    for option, code in _FILES.items():
        if f"{option} " in text or f"{option}:" in text:
            file = options.get(option) if option.endswith("location") else None
            return KafkaUnusableError(
                f"the file {file} can't be used: {_trouble_with(file) or text}" if file else f"{option}: {text}",
                where=f"{_OPTIONS}{option.upper().replace('.', '_')}",
                hint="it must be readable, and in PEM format",
                code=code,
            )
    return ConfigurationError(
        f"a Kafka client can't be made: {text}",
        hint=f"check the Kafka connection options ({_OPTIONS}*)",
        code="kafka.options",
    )


def _trouble_with(file: str) -> str | None:
    """Why a file can't be read; None where it can, and is not what it should be."""
    try:
        Path(file).read_bytes()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def classify(said: Iterable[Said], address: str) -> Refusal | None:
    """The reason that tells most of all that clients said; None where they said nothing of one. `address` is the cluster's."""
    found = [one for one in (_reason(words, address) for words in said) if one is not None]
    return max(found, key=lambda one: one.kind.rank, default=None)


def _code_of(said: Said) -> str | None:
    return code_of(said.code, said.text, said.state)


def _reason(said: Said, cluster: str) -> Refusal | None:
    code = _code_of(said)
    return refusal(code, said.address or cluster, said.text) if code is not None else None


def code_of(error: int, text: str, state: str = "") -> str | None:
    """The code of the reason that a client's error and its words are about, in a state of the connection; None where they tell none."""
    text = text.lower()
    if error == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001 (librdkafka's own codes have no other name)
        return None  # it counts brokers, and does not say why
    if error in {KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED}:  # noqa: SLF001
        return _sign_in(text)
    if error == KafkaError._RESOLVE:  # noqa: SLF001
        return "kafka.unknown_host"
    if error == KafkaError._SSL or state == "SSL_HANDSHAKE" or "ssl routines" in text:  # noqa: SLF001
        return _tls(text)
    if "connection refused" in text:
        return "kafka.refused"
    if error == KafkaError._TIMED_OUT or any(words in text for words in _UNANSWERED):  # noqa: SLF001
        return "kafka.timeout"
    if error == KafkaError._TRANSPORT:  # noqa: SLF001
        return "kafka.disconnected"
    return None


def _sign_in(text: str) -> str:
    if "unsupported sasl mechanism" in text:
        return "kafka.sasl_mechanism"
    if "not valid in current sasl state" in text:
        return "kafka.sasl_unexpected"
    if '{"status":"' in text:  # Kafka's OAuthBearerSaslServer (RFC 7628, section 3.2.2)
        return "kafka.token_refused"
    if "oauthbearer token" in text or "oidc" in text:
        return "kafka.token"
    return "kafka.authentication"


def _tls(text: str) -> str:
    if "certificate verify failed" in text:
        return "kafka.tls_ca"  # or its dates, or its name: `examined` finds out
    if "plaintext broker listener" in text or "wrong version number" in text:
        return "kafka.tls_to_plaintext"
    if "connection closed by peer" in text or "disconnected" in text:
        return "kafka.tls_to_plaintext"  # a listener without TLS closes at our first bytes
    if "alert" in text and any(
        word in text for word in ("certificate", "unknown ca", "unknown_ca", "access denied", "decrypt error")
    ):
        return "kafka.tls_client_certificate"
    return "kafka.tls"
