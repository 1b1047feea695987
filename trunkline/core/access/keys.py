"""Keys of principals: `tlk_<id>_<secret>`. The id is no secret and names the key in lists and logs; of the whole only a hash is kept.

The secret has 256 random bits, so a plain SHA-256 can't be guessed back, and costs next to nothing on each request: a slow hash is for
what people think up. The prefix lets scanners of repositories find a key that was committed.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, replace
from typing import Any, Final

PREFIX: Final = "tlk"
_FORM: Final = re.compile(r"tlk_(?P<id>[a-z2-7]{10})_(?P<secret>[A-Za-z0-9_-]{43})")
_ALPHABET: Final = "abcdefghijklmnopqrstuvwxyz234567"


@dataclass(frozen=True, slots=True)
class Key:
    """What is kept of a key. Times are Unix seconds; `expires` is None for one that lasts until it is revoked."""

    id: str
    hash: str
    created: float
    expires: float | None = None

    def lasts(self, now: float) -> bool:
        """Whether it may be used at this time."""
        return self.expires is None or now < self.expires

    def is_made_of(self, presented: str) -> bool:
        """Whether the hash is that of what was presented, in the same time whether it is or not."""
        return hmac.compare_digest(self.hash, digest(presented))

    def until(self, end: float) -> Key:
        """The same, ending then at the latest."""
        return replace(self, expires=end if self.expires is None else min(end, self.expires))

    def as_dict(self) -> dict[str, Any]:
        """As it is kept."""
        return {"id": self.id, "hash": self.hash, "created": self.created, "expires": self.expires}


def make_key(now: float, expires: float | None = None) -> tuple[Key, str]:
    """A new key: what is kept of it, and the whole, which is shown once and never again."""
    key_id = "".join(secrets.choice(_ALPHABET) for _ in range(10))
    whole = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(32)}"
    return Key(key_id, digest(whole), now, expires), whole


def id_of(presented: str) -> str | None:
    """The id in what was presented, or None where it has not the form of a key."""
    found = _FORM.fullmatch(presented)
    return found.group("id") if found is not None else None


def digest(presented: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(presented.encode("utf-8", "surrogatepass")).hexdigest()
