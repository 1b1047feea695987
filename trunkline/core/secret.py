"""Secrets: references in manifests that resolve when their pipeline is opened, and values that no log, status, error or API answer
shows.

A reference is `${env:NAME}` or `${file:path}`, or names another store (`trunkline.core.secretstores`). A secret setting accepts references
only, so that no manifest in git holds a password. What is read for one is what the operator of the worker allows
(`trunkline.core.secretpolicy`).

Where manifests are checked and nothing is started, references are left as they are written: their form is judged, and nothing is
read of the environment, of files or of stores. So a check needs no secrets, and no message of it can show one.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from hashlib import blake2b
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from trunkline.core.errors import ConfigurationError, TrunklineError, UnavailableError, did_you_mean, nearest
from trunkline.core.redaction import learn, redact
from trunkline.core.secretpolicy import known_refusal
from trunkline.core.secretstores import STORES, AbsentError, RefusedError, refused_reference, text_of

REFERENCE = re.compile(r"\$\{(?P<scheme>[a-z]+):(?P<path>[^}:#]+(?:#[^}:]+)?)(?::-(?P<default>[^}]*))?\}")
_PASSWORD_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^/\s:@]*:)[^/\s@]+@", re.IGNORECASE)
_SECRET_WORDS = {
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "pwd",
    "secret",
    "token",
}
_SECRET_PAIRS = {
    (word, "key") for word in ("access", "account", "api", "auth", "private", "secret", "shared", "signing")
}
_NEARLY = re.compile(r"\$\{(?P<inside>[A-Z_][A-Z0-9_]*|[A-Za-z]+:[^}{]*)\}")
"""What was probably meant as a reference: `${PASSWORD}`, `${ENV:X}`, `${env:}`."""
_MARKING = secrets.token_bytes(32)
_met: ContextVar[list[str] | None] = ContextVar("trunkline_references_as_written", default=None)


@contextmanager
def references_as_written() -> Iterator[list[str]]:
    """Within it references are judged by their form and stay as they are written. Gives the list of those that were met."""
    met: list[str] = []
    token = _met.set(met)
    try:
        yield met
    finally:
        _met.reset(token)


def references_met() -> Sequence[str]:
    """The references that were met and left as they are written; none where references are resolved."""
    return _met.get() or ()


def as_written() -> bool:
    """Whether references are left as they are written here."""
    return _met.get() is not None


class Secret:
    """A reference to a secret. `reveal()` resolves it; everything else shows the reference and never the value."""

    __slots__ = ("_literal", "reference")

    def __init__(self, reference: str, *, literal: str | None = None) -> None:
        self.reference = reference
        self._literal = literal

    @classmethod
    def of(cls, value: str) -> Secret:
        """A secret from a value that is already in memory: for tests and programs, never for manifests."""
        learn(value)
        return cls("${literal}", literal=value)

    def reveal(self) -> str:
        """The value. Raises `ConfigurationError` (`secret.missing`) that names the reference when it can't be resolved."""
        if self._literal is not None:
            return self._literal
        if as_written():
            raise ConfigurationError(f"{self.reference} is not resolved here", code="secret.missing")
        return resolve_references(self.reference, secret=True)

    def __repr__(self) -> str:
        return f"Secret({self.reference!r})"

    def __str__(self) -> str:
        return "********"

    def __reduce__(self) -> tuple[Any, ...]:
        # In another process it has to be learned again.
        return (Secret, (self.reference,)) if self._literal is None else (Secret.of, (self._literal,))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and (self.reference, self._literal) == (other.reference, other._literal)

    def __hash__(self) -> int:
        return hash(self.reference)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls._validate,
            serialization=core_schema.plain_serializer_function_ser_schema(lambda secret: secret.reference),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {
            "type": "string",
            "format": "secret-reference",
            "pattern": r"\$\{[a-z]+:[^}]+\}",
            "description": "a reference to a secret: ${env:NAME} or ${file:path}",
        }

    @classmethod
    def _validate(cls, value: Any) -> Secret:
        if isinstance(value, Secret):
            return value
        if not isinstance(value, str):
            raise _wrong_form("a secret is written as a reference")
        found = REFERENCE.fullmatch(value)
        try:
            if found is not None:
                check_form(value)
                return cls(value)
            if _NEARLY.fullmatch(value):
                check_form(value)
        except ConfigurationError as error:
            raise _wrong_form(error.message, error.hint, error.code) from None
        # Whatever it is, it may be the secret itself: it is not repeated.
        raise _wrong_form("a secret is written as a reference, and this is none")


def resolve_references(text: str, *, secret: bool = False) -> str:
    """`text` with each reference replaced by what it names. With `secret`, or where its store or its name says so, a value is a secret.

    Raises `ConfigurationError` (`secret.missing`, `secret.scheme`, `secret.form`) that names the reference, never a value.
    """
    check_form(text)
    met = _met.get()
    if met is not None:
        met += [match.group(0) for match in REFERENCE.finditer(text)]
        return text

    def replaced(match: re.Match[str]) -> str:
        value = _resolve(match)
        if secret or match.group("scheme") != "env" or sounds_secret(match.group("path")):
            learn(value)
        return value

    return REFERENCE.sub(replaced, text)


SECRET_OPTIONS = frozenset(
    {
        "basic.auth.user.info",
        "bearer.auth.client.secret",
        "bearer.auth.token",
        "sasl.jaas.config",
        "sasl.oauthbearer.client.secret",
        "sasl.oauthbearer.config",
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
    }
)
"""The options of Kafka's and the registry's clients that are secrets."""


def refuse_references(text: str) -> None:
    """Raises `ConfigurationError` for a reference, or what is meant for one, in a setting that takes none."""
    found = REFERENCE.search(text) or _NEARLY.search(text)
    if found is not None:
        raise ConfigurationError(
            f"{found.group(0)} is not resolved in this setting",
            hint="write the value itself; references are for secrets, and for settings whose description says that they take them",
            code="secret.place",
        )


def guarded(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a client with those that are secrets as `Secret`: no representation of them shows one."""
    return {
        name: Secret.of(value) if isinstance(value, str) and name in SECRET_OPTIONS else value
        for name, value in options.items()
    }


def revealed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as the client itself takes them. They belong into the call that makes it, and into no variable."""
    return {name: value.reveal() if isinstance(value, Secret) else value for name, value in options.items()}


def without_secrets(data: Any, name: str = "") -> Any:
    """Settings as they may be kept and shown for ever: text under a `name` that sounds like a secret is asterisks.

    Settings typed as secrets accept references only, and those stay. This is for what a person may have written elsewhere:
    a header `Authorization`, a password in an address, the default of a reference.
    """
    if isinstance(data, dict):
        return {key: without_secrets(value, str(key)) for key, value in data.items()}
    if isinstance(data, list):
        return [without_secrets(one, name) for one in data]
    if not isinstance(data, str):
        return data
    text = _PASSWORD_IN_URL.sub(r"\1********@", redact(data))
    if not sounds_secret(name):
        return text
    whole = REFERENCE.fullmatch(text)
    if whole is None:
        return "********"
    return text if whole.group("default") is None else f"{text[: whole.start('default')]}********}}"


def sounds_secret(name: str) -> bool:
    """Whether a field of this name holds a secret, by its last words: `password`, `X-Api-Key`."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)
    tail = [word.lower() for word in words[-2:]]
    return bool(tail) and (tail[-1] in _SECRET_WORDS or tuple(tail) in _SECRET_PAIRS)


def check_form(text: str) -> None:
    """Raises `ConfigurationError` for a reference to a store that is not known or to what is never read, and for what was probably meant
    as a reference.
    """
    for found in REFERENCE.finditer(text):
        _check_scheme(found)
        reason = known_refusal(found.group("scheme"), found.group("path"))
        if reason is not None:
            raise refused_reference(found.group(0), found.group("scheme"), found.group("path"), reason)
    for near in _NEARLY.finditer(REFERENCE.sub("", text)):
        scheme, colon, path = near.group("inside").partition(":")
        meant = path.strip() if colon else scheme
        store = nearest(scheme.lower(), STORES.schemes()) if colon else "env"
        raise ConfigurationError(
            f"{near.group(0)} is no reference",
            hint=f"write ${{{store or 'env'}:{meant or 'NAME'}}}",
            code="secret.form",
        )


def _check_scheme(match: re.Match[str]) -> None:
    scheme = match.group("scheme")
    if scheme not in STORES.schemes():
        raise ConfigurationError(
            f"there is no secret store {scheme!r}, which {match.group(0)} names",
            hint=did_you_mean(scheme, STORES.schemes()),
            code="secret.scheme",
        )


def _wrong_form(message: str, hint: str | None = None, code: str | None = None) -> PydanticCustomError:
    hint = hint or "write ${env:NAME} for a variable of the environment, or ${file:path} for the content of a file"
    return PydanticCustomError("secret", "{message}", {"message": message, "hint": hint, "code": code})


def _resolve(match: re.Match[str]) -> str:
    scheme, path, default = match.group("scheme"), match.group("path"), match.group("default")
    try:
        return STORES.read(scheme, path)
    except RefusedError as error:
        raise refused_reference(match.group(0), scheme, path, str(error)) from None
    except AbsentError as error:
        if default is not None:
            return default
        raise ConfigurationError(
            f"{match.group(0)} can't be resolved: {error}",
            hint=_ADVICE.get(scheme, "put it into its store at {path}").format(path=path),
            code="secret.missing",
        ) from None


_ADVICE = {
    "env": "set the environment variable {path} before the start",
    "file": "put a readable UTF-8 file at {path}",
}


def watched_references(data: Any) -> frozenset[str]:
    """The references in data, however deep, whose values may change while a worker runs; and paths of files that are read as they are.

    The environment of a process never changes. A setting whose name ends in `_file` (`ca_file`) names a text file that is read when its
    pipeline is opened: it is watched alike.
    """
    if isinstance(data, str):
        found = REFERENCE.finditer(data) if "${" in data else ()
        return frozenset(match.group(0) for match in found if match.group("scheme") != "env")
    if isinstance(data, Mapping):
        files = [value for name, value in data.items() if str(name).endswith("_file") and isinstance(value, str)]
        paths = frozenset(file for file in files if file and "${" not in file)
        return paths.union(*map(watched_references, data.values()))
    return frozenset().union(*map(watched_references, data if isinstance(data, (list, tuple)) else ()))


def marks_of(watched: Iterable[str]) -> dict[str, str]:
    """What tells, for each of what is watched, whether it still has the value that it had: equal for equal values, and only within this
    process. Nothing can be learned of a value from its mark.

    Reads files and asks stores, so it belongs in a thread. A store that is away changes nothing as long as its last value holds.
    """
    watched = list(watched)
    STORES.fetch(_places(watched))
    marks = {}
    for one in watched:
        match = REFERENCE.fullmatch(one)
        try:
            value = text_of(one) if match is None else STORES.read(match.group("scheme"), match.group("path"))
        except (AbsentError, RefusedError, UnavailableError):
            marks[one] = ""
        else:
            marks[one] = blake2b(value.encode("utf-8", "surrogatepass"), key=_MARKING).hexdigest()
    return marks


def stores_trouble(watched: Iterable[str]) -> TrunklineError | None:
    """Why one of these references has no value now: its store did not answer when its mark was asked for. None where all have one."""
    return STORES.trouble(_places(watched))


def _places(watched: Iterable[str]) -> list[tuple[str, str]]:
    """Those that are kept in stores of their own."""
    matches = filter(None, map(REFERENCE.fullmatch, watched))
    places = [(match.group("scheme"), match.group("path")) for match in matches]
    return [place for place in places if place[0] != "file"]
