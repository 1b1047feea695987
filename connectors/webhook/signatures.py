"""Proofs: does a request come from somebody who knows a secret? One verifier for each provider.

Every comparison takes the same time whatever it compares, and every accepted secret is tried even after one has matched, so
that the time of an answer tells nothing. Signatures are compared as text in the one form that the provider writes: decoders
take junk between characters, and a mutated signature must not pass.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from connectors.webhook.settings import (
    Anybody,
    ApiKey,
    BasicAuth,
    GenericHmac,
    GitHub,
    GitLab,
    Slack,
    StandardWebhooks,
    Stripe,
)
from trunkline.core.errors import ConfigurationError
from trunkline.core.secret import Secret

_TIMESTAMP = re.compile(r"[0-9]{1,11}")
_MAX_SIGNATURES = 16
_ID_FORM = re.compile(r"[\x21-\x7e]{1,256}")


class RefusedError(Exception):
    """The request proves nothing. The message is for our log only: a forger learns nothing from the answer."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What a good proof covers besides the body: `signed_id` is an id that the sender can't have changed without the secret."""

    signed_id: str | None = None


Verifier = Callable[[Mapping[str, str], bytes, float], Proof]
"""Takes the headers (lower-case names), the raw body and the time (Unix seconds). Raises `RefusedError`."""


def make_verifier(settings: Any) -> Verifier:
    """The verifier for a `verify` setting, its secrets resolved. Raises `ConfigurationError` for secrets that can't be used."""
    return _MAKERS[type(settings)](settings)


def matches_any(given: str, expected: Iterable[bytes]) -> bool:
    """Whether `given` is one of `expected`, in constant time over all of them."""
    # A header may hold anything, also what UTF-8 can't write; it must only fail to match.
    found = given.encode("utf-8", "backslashreplace")
    matched = False
    for candidate in expected:
        matched |= hmac.compare_digest(found, candidate)
    return matched


def fresh_timestamp(text: str, now: float, tolerance: float) -> str:
    """A Unix timestamp in seconds that is at most `tolerance` away from `now`, either way. Raises `RefusedError`."""
    if not _TIMESTAMP.fullmatch(text):
        raise RefusedError("the timestamp is missing or no number of seconds")
    if abs(now - int(text)) > tolerance:
        raise RefusedError("the timestamp is outside the replay window")
    return text


def _keys(secrets: Sequence[Secret], decode: Callable[[str], bytes] = str.encode) -> list[bytes]:
    keys: list[bytes] = []
    for secret in secrets:
        try:
            key = decode(secret.reveal())
        except (binascii.Error, ValueError):
            # The decoder's own message may quote the secret.
            raise ConfigurationError(
                f"the webhook secret {secret.reference} is not written in the encoding that the provider uses",
                hint="copy it again as the provider shows it",
                code="webhook.secret",
            ) from None
        if not key:
            raise ConfigurationError(
                f"the webhook secret {secret.reference} is empty",
                hint="set it to the shared secret",
                code="webhook.secret",
            )
        keys.append(key)
    return keys


def _hex_digests(keys: list[bytes], signed: bytes, algorithm: str = "sha256") -> list[bytes]:
    return [hmac.new(key, signed, algorithm).hexdigest().encode() for key in keys]


def _base64_digests(keys: list[bytes], signed: bytes, algorithm: str = "sha256") -> list[bytes]:
    return [base64.b64encode(hmac.new(key, signed, algorithm).digest()) for key in keys]


def _after_prefix(header: str, prefix: str) -> str:
    if not header.startswith(prefix):
        raise RefusedError("the signature is missing or has another form")
    return header[len(prefix) :]


def _check(given: str, expected: list[bytes]) -> None:
    if not matches_any(given, expected):
        raise RefusedError("the signature or secret does not match")


def _github(settings: GitHub) -> Verifier:
    """https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries"""
    keys = _keys(settings.secrets)

    def verify(headers: Mapping[str, str], body: bytes, _now: float) -> Proof:
        _check(_after_prefix(headers.get("x-hub-signature-256", ""), "sha256="), _hex_digests(keys, body))
        return Proof()

    return verify


def _gitlab(settings: GitLab) -> Verifier:
    """https://docs.gitlab.com/user/project/integrations/webhooks/

    The token is a shared secret and signs nothing: who knows it may write any body and any header alike, so
    `Idempotency-Key` deserves the same trust as the body. `X-Gitlab-Event-UUID` is no delivery id: events that
    a webhook triggered in turn share it.
    """
    keys = _keys(settings.secrets)

    def verify(headers: Mapping[str, str], _body: bytes, _now: float) -> Proof:
        _check(headers.get("x-gitlab-token", ""), keys)
        return Proof(_plain_id(headers.get("idempotency-key")))

    return verify


def _slack(settings: Slack) -> Verifier:
    """https://docs.slack.dev/authentication/verifying-requests-from-slack"""
    keys, tolerance = _keys(settings.secrets), settings.tolerance

    def verify(headers: Mapping[str, str], body: bytes, now: float) -> Proof:
        given = _after_prefix(headers.get("x-slack-signature", ""), "v0=")
        stamp = fresh_timestamp(headers.get("x-slack-request-timestamp", ""), now, tolerance)
        _check(given, _hex_digests(keys, b"v0:" + stamp.encode() + b":" + body))
        return Proof()

    return verify


def _stripe(settings: Stripe) -> Verifier:
    """https://docs.stripe.com/webhooks/signature: several `v1` stand for several secrets while one is rolled."""
    keys, tolerance = _keys(settings.secrets), settings.tolerance

    def verify(headers: Mapping[str, str], body: bytes, now: float) -> Proof:
        pairs = [part.strip(" ").partition("=") for part in headers.get("stripe-signature", "").split(",")]
        stamps = [value for name, _, value in pairs if name == "t"]
        given = [value for name, _, value in pairs if name == "v1"]
        if len(stamps) != 1 or not 0 < len(given) <= _MAX_SIGNATURES:
            raise RefusedError("the signature is missing or has another form")
        stamp = fresh_timestamp(stamps[0], now, tolerance)
        _check_several(given, _hex_digests(keys, stamp.encode() + b"." + body))
        return Proof()

    return verify


def _standard(settings: StandardWebhooks) -> Verifier:
    """https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md

    Only the symmetric scheme, `v1`; other versions in the header are passed over, as the specification wants.
    """
    keys, tolerance = _keys(settings.secrets, _whsec), settings.tolerance

    def verify(headers: Mapping[str, str], body: bytes, now: float) -> Proof:
        message_id = _plain_id(headers.get("webhook-id"))
        # The id ends at the first full stop of what is signed; one inside it would move the border to the timestamp.
        if message_id is None or "." in message_id:
            raise RefusedError("the message id is missing or has a full stop")
        stamp = fresh_timestamp(headers.get("webhook-timestamp", ""), now, tolerance)
        pairs = [part.partition(",") for part in headers.get("webhook-signature", "").split(" ")]
        given = [value for version, _, value in pairs if version == "v1"]
        if not 0 < len(given) <= _MAX_SIGNATURES:
            raise RefusedError("the signature is missing or has another form")
        _check_several(given, _base64_digests(keys, f"{message_id}.{stamp}.".encode() + body))
        return Proof(message_id)

    return verify


def _check_several(given: list[str], expected: list[bytes]) -> None:
    matched = False
    for one in given:
        matched |= matches_any(one, expected)
    if not matched:
        raise RefusedError("no signature matches")


def _whsec(text: str) -> bytes:
    encoded = text.removeprefix("whsec_")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)


def _hmac(settings: GenericHmac) -> Verifier:
    decoders: dict[str, Callable[[str], bytes]] = {
        "text": str.encode,
        "hex": bytes.fromhex,
        "base64": lambda text: base64.b64decode(text, validate=True),
    }
    keys = _keys(settings.secrets, decoders[settings.key_encoding])
    header = settings.header.lower()
    stamp_header = (settings.timestamp_header or "").lower()
    id_header = (settings.id_header or "").lower()
    parts = re.split(r"(\{(?:body|timestamp|id)\})", settings.signed)

    def verify(headers: Mapping[str, str], body: bytes, now: float) -> Proof:
        given = _after_prefix(headers.get(header, ""), settings.prefix)
        known: dict[str, bytes] = {"{body}": body}
        if stamp_header:
            known["{timestamp}"] = fresh_timestamp(headers.get(stamp_header, ""), now, settings.tolerance).encode()
        signed_id = _plain_id(headers.get(id_header)) if id_header else None
        if id_header:
            if signed_id is None:
                raise RefusedError("the signed id is missing")
            known["{id}"] = signed_id.encode()
        signed = b"".join(known.get(part, part.encode()) for part in parts)
        if settings.encoding == "hex":
            # Vendors write hexadecimal digits in either case.
            _check(given.lower(), _hex_digests(keys, signed, settings.algorithm))
        else:
            _check(given, _base64_digests(keys, signed, settings.algorithm))
        return Proof(signed_id)

    return verify


def _basic(settings: BasicAuth) -> Verifier:
    keys = _keys(settings.secrets)
    expected = [base64.b64encode(settings.username.encode() + b":" + key) for key in keys]

    def verify(headers: Mapping[str, str], _body: bytes, _now: float) -> Proof:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "basic":
            raise RefusedError("no Basic credentials are given")
        _check(given.strip(), expected)
        return Proof(_header_id(headers, settings.id_header))

    return verify


def _api_key(settings: ApiKey) -> Verifier:
    keys, header = _keys(settings.secrets), settings.header.lower()

    def verify(headers: Mapping[str, str], _body: bytes, _now: float) -> Proof:
        _check(_after_prefix(headers.get(header, ""), settings.prefix), keys)
        return Proof(_header_id(headers, settings.id_header))

    return verify


def _anybody(settings: Anybody) -> Verifier:
    return lambda headers, _body, _now: Proof(_header_id(headers, settings.id_header))


def _header_id(headers: Mapping[str, str], name: str | None) -> str | None:
    return _plain_id(headers.get(name.lower())) if name else None


def _plain_id(text: str | None) -> str | None:
    return text if text and _ID_FORM.fullmatch(text) else None


_MAKERS: dict[type, Callable[[Any], Verifier]] = {
    GitHub: _github,
    GitLab: _gitlab,
    Slack: _slack,
    Stripe: _stripe,
    StandardWebhooks: _standard,
    GenericHmac: _hmac,
    BasicAuth: _basic,
    ApiKey: _api_key,
    Anybody: _anybody,
}


def body_digest(body: bytes) -> bytes:
    """SHA-256 of a body: what a delivery is known by when no id of it is signed."""
    return hashlib.sha256(body).digest()
