"""Tokens that a worker gives for a key (OAuth 2.0 client credentials, RFC 6749, section 4.4), and that every other worker believes.

They are JWTs signed by a key pair (Ed25519, RFC 8037) that its worker made and whose public half is told to all. The private half never
leaves the process: a token can't be made by whoever reads topics or files. A token names the key that it was given for, and ends with it.
"""

from __future__ import annotations

import time
from typing import Any, Final

import jwt
import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from jwt.algorithms import OKPAlgorithm

from trunkline.core.access.principals import Caller
from trunkline.core.log import get_logger

log = get_logger(__name__)
ISSUER: Final = "issuer:"
"""Before the id of a key pair, the key of its record. Names of principals have no colon."""
AUDIENCE: Final = "trunkline"
LASTS: Final = 600.0
_ALGORITHM: Final = "EdDSA"
VERSION: Final = 1


class TokenError(Exception):
    """A token that is not believed. The text says why, for the log."""


class Issuer:
    """The key pair of one worker, which signs for a day at most."""

    SIGNS: Final = 24 * 3600.0

    def __init__(self, worker: str, now: float | None = None) -> None:
        now = time.time() if now is None else now
        self.id = f"{worker}-{int(now)}"
        self.until = now + self.SIGNS
        self._private = Ed25519PrivateKey.generate()

    def record(self) -> bytes:
        """What others are told, to believe its tokens until the last one has ended."""
        public = OKPAlgorithm.to_jwk(self._private.public_key(), as_dict=True)
        return orjson.dumps({"v": VERSION, "jwk": public, "until": self.until + LASTS})

    def issue(self, caller: Caller, now: float) -> str:
        """A token for who signed in with a key."""
        claims = {
            "sub": caller.principal.name,
            "key": caller.key,
            "aud": AUDIENCE,
            "iat": int(now),
            "exp": int(now + LASTS),
        }
        return jwt.encode(claims, self._private, algorithm=_ALGORITHM, headers={"kid": self.id})


class Tokens:
    """The public keys of all workers."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Any, float]] = {}

    def heard(self, issuer: str, value: bytes | None) -> None:
        """Takes the record of a key pair."""
        self._known.pop(issuer, None)
        if value is None:
            return
        try:
            data = orjson.loads(value)
            self._known[issuer] = OKPAlgorithm.from_jwk(data["jwk"]), float(data["until"])
        except (ValueError, TypeError, KeyError, jwt.InvalidKeyError) as error:
            log.error(
                "the key of a worker's tokens can't be read, and its tokens are not believed",
                issuer=issuer,
                reason=str(error),
            )

    def ended(self, now: float) -> list[str]:
        """The key pairs all of whose tokens have ended."""
        return [issuer for issuer, (_, until) in self._known.items() if until < now]

    def read(self, token: str, now: float) -> tuple[str, str]:
        """The principal and the id of the key that a token was given for. Raises TokenError."""
        try:
            issuer = jwt.get_unverified_header(token).get("kid", "")
            public, until = self._known.get(issuer, (None, 0.0))
            if public is None or until < now:
                raise TokenError("nobody here knows who signed the token")
            claims = jwt.decode(
                token,
                public,
                algorithms=[_ALGORITHM],
                audience=AUDIENCE,
                options={"require": ["exp", "sub", "key", "aud"], "verify_exp": False, "verify_iat": False},
            )
            # By the same clock as keys.
            if float(claims["exp"]) <= now:
                raise TokenError("the token has expired")
            return str(claims["sub"]), str(claims["key"])
        except (jwt.PyJWTError, ValueError, TypeError) as error:
            raise TokenError(f"the token is not ours: {error}") from None


def looks_like_token(presented: str) -> bool:
    """Whether it has a JWT's form: three parts with points between."""
    return presented.count(".") == 2 and presented.startswith("eyJ")
