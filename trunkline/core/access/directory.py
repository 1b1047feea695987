"""The directory: who there is, by name and by key, as a topic tells it; who signed in, from where, and how often."""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson

from trunkline.core.access.keys import Key, id_of, make_key
from trunkline.core.access.principals import OWN_NAME, RESERVED, Caller, Principal
from trunkline.core.access.roles import Grant, Role
from trunkline.core.access.tokens import ISSUER, TokenError, Tokens, looks_like_token
from trunkline.core.log import get_logger

log = get_logger(__name__)
LONGEST = 4096
"""Of what is presented to sign in, in characters."""


class DeniedError(Exception):
    """Somebody did not sign in. `reason` is for the log; who asks is told nothing but the status and how long to wait, in seconds."""

    def __init__(self, status: int, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.wait = wait


class Directory:
    """All principals. Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._principals: dict[str, Principal] = {}
        self._keys: dict[str, tuple[Principal, Key]] = {}
        self._used: dict[str, float] = {}
        self._rates: dict[str, _Rate] = {}
        self.tokens = Tokens()

    def heard(self, name: str, value: bytes | None) -> None:
        """Takes a record of the topic. One that can't be read takes its principal away: nobody is let in by what nobody understands."""
        if name.startswith(ISSUER):
            self.tokens.heard(name.removeprefix(ISSUER), value)
            return
        if name in RESERVED:
            return
        before = self._principals.pop(name, None)
        for key in before.keys if before is not None else ():
            self._keys.pop(key.id, None)
        if value is None:
            self._rates.pop(name, None)
            return
        try:
            found = Principal.of(orjson.loads(value))
            if found.name != name:
                raise ValueError(f"it says that it is {found.name!r}")
        except (ValueError, TypeError, KeyError) as error:
            log.error("a principal can't be read, and may nothing", principal=name, reason=str(error))
            return
        self._principals[name] = found
        self._keys.update((key.id, (found, key)) for key in found.keys)

    def own_key(self) -> str:
        """A key of this process for itself and the programs of its user. No topic knows it, and it ends with the process.

        The user that is presented with it is whom the audit trail names.
        """
        key, whole = make_key(self._clock())
        principal = Principal(OWN_NAME, (Grant(Role.ADMIN),), keys=(key,))
        self._principals[OWN_NAME] = principal
        self._keys[key.id] = principal, key
        return whole

    def get(self, name: str) -> Principal | None:
        """A principal by name."""
        return self._principals.get(name)

    def used(self) -> Mapping[str, float]:
        """When each key was used last that was used since this was asked."""
        used, self._used = self._used, {}
        return used

    def sign_in(self, headers: Mapping[str, str], address: str) -> Caller | None:
        """Who sends a request with these headers, by their lower-case names; None where it presents nothing.

        A key comes in `X-API-Key`, in `Authorization: Bearer`, or as the password of `Authorization: Basic` with the principal's name
        or the key's id for the user, as clients of Confluent's registry send it. Raises `DeniedError` for what is presented and not right.
        """
        presented, user = _presented(headers)
        return self.by_key(presented, address, user) if presented is not None else None

    def by_key(self, presented: str, address: str, user: str | None = None) -> Caller:
        """Who has this key, and says to be this user where one is named. Raises `DeniedError`."""
        if looks_like_token(presented) and len(presented) <= LONGEST:
            return self.by_token(presented, address)
        key_id = id_of(presented) if len(presented) <= LONGEST else None
        if key_id is None:
            raise DeniedError(401, "what was presented is no key")
        principal, key = self._keys.get(key_id, (None, None))
        if principal is None or key is None or not key.is_made_of(presented):
            raise DeniedError(401, f"nobody has the key {key_id}")
        if user in (None, "", principal.name, key_id):
            return self.admit(principal, key, address)
        if principal.name != OWN_NAME:
            raise DeniedError(401, f"the key {key_id} is not that of the user it came with")
        # Whoever can read the file with this key is the worker's own user, and says in whose name a command is given.
        return replace(self.admit(principal, key, address), on_behalf_of=user)

    def by_token(self, token: str, address: str) -> Caller:
        """Who was given this token for a key, as long as both last. Raises `DeniedError`."""
        try:
            name, key_id = self.tokens.read(token, self._clock())
        except TokenError as error:
            raise DeniedError(401, str(error)) from None
        principal, key = self._keys.get(key_id, (None, None))
        if principal is None or key is None or principal.name != name:
            raise DeniedError(401, f"the key {key_id} that the token was given for is no more")
        return self.admit(principal, key, address)

    def admit(self, principal: Principal, key: Key, address: str) -> Caller:
        """Lets in who has proved to hold a key of a principal's, unless it ended, comes from elsewhere, or comes too often."""
        now = self._clock()
        if not key.lasts(now):
            raise DeniedError(401, f"the key {key.id} of {principal.name} has expired")
        if not principal.may_come_from(address):
            raise DeniedError(403, f"{principal.name} may not come from {address}")
        self._used[key.id] = now
        if principal.rate is not None:
            rate = self._rates.get(principal.name)
            if rate is None or rate.a_second != principal.rate:
                rate = self._rates[principal.name] = _Rate(principal.rate, now)
            wait = rate.take(now)
            if wait > 0:
                raise DeniedError(429, f"{principal.name} sends more than {principal.rate:g} requests a second", wait)
        return Caller(principal, key.id)


class _Rate:
    """A bucket that a second's worth of requests fills, and at least one."""

    def __init__(self, a_second: float, now: float) -> None:
        self.a_second = a_second
        self._most = max(1.0, a_second)
        self._left = self._most
        self._at = now

    def take(self, now: float) -> float:
        """Takes one; else the seconds until there is one."""
        self._left = min(self._most, self._left + max(0.0, now - self._at) * self.a_second)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self.a_second


def _presented(headers: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The key of a request and the user it came with. Two ways at once are one too many: which counts is not guessed."""
    own, authorization = headers.get("x-api-key"), headers.get("authorization")
    if own is not None and authorization is not None:
        raise DeniedError(401, "a key came in two ways at once")
    if own is not None:
        return own.strip(), None
    if authorization is None:
        return None, None
    scheme, _, rest = authorization.strip().partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip(), None
    if scheme.lower() == "basic":
        return _basic(rest.strip())
    raise DeniedError(401, "signing in is by Bearer or Basic")


def _basic(credentials: str) -> tuple[str, str]:
    # RFC 7617: the user has no colon, the password may.
    if len(credentials) > LONGEST:
        raise DeniedError(401, "the credentials are too long")
    try:
        user, colon, password = base64.b64decode(credentials, validate=True).decode("utf-8").partition(":")
    except (binascii.Error, ValueError):
        raise DeniedError(401, "the credentials are not Basic's") from None
    if not colon:
        raise DeniedError(401, "the credentials are not Basic's")
    return password, user
