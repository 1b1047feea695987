"""Where secrets are kept: the environment, files, and the stores that packages bring by the entry point group `trunkline.secrets`.

A store is asked on an event loop of its own, in a thread, whoever wants to know. What it answered is kept as long as it holds, so that
a store that is away stops nothing that runs; who waits for a first answer is told that by `secret.unavailable`, which is tried again.
"""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import ClassVar, TypeVar

from trunkline.core.errors import ConfigurationError, TrunklineError, UnavailableError
from trunkline.core.redaction import learn
from trunkline.core.secretpolicy import advice, file_refusal, variable_refusal

GROUP = "trunkline.secrets"
MAX_BYTES = 1 << 20
"""Of a secret."""
ANSWER_SECONDS = 10.0
"""How long a store may take for one answer."""
_RENEWED_AT = 0.8
"""Of its life, a value is fetched again."""
T = TypeVar("T")
Place = tuple[str, str]
"""A store's scheme, and a path in it."""


class SecretStore(ABC):
    """A store of secrets, `${scheme:path}` or `${scheme:path#key}` in manifests. The entry point's name is the scheme: small letters.

    It is made without arguments, once a process, and reads how it is reached (its address, what we sign in with) from the environment.
    `resolve` is called on an event loop that is this store's for the life of the process, several times at once. What it returns, and
    what it signs in with, appears in no log; the latter it `learn`s (`trunkline.core.redaction`).
    """

    refresh: ClassVar[float] = 60.0
    """After so many seconds a value without an end is asked for again, since it may have been changed."""

    @abstractmethod
    async def resolve(self, path: str) -> tuple[str, float | None]:
        """The value at `path`, with its `#key` where it has one, and when it ends: Unix seconds, None where it doesn't say.

        Raises `LookupError` when nothing is there, or it is refused: the text says which. Anything else that is raised means that the
        store can't say now. It is given up after `ANSWER_SECONDS`.
        """


class AbsentError(Exception):
    """A reference has no value. The text says why."""


class RefusedError(Exception):
    """A reference may not be resolved here. The text says why."""


@dataclass(slots=True)
class _Held:
    """What is known of one place of a store."""

    value: str | None = None
    expires_at: float | None = None
    fetched_at: float = 0.0
    trouble: Exception | None = None
    """Why the last question had no answer."""

    def holds(self, now: float) -> bool:
        return self.value is not None and (self.expires_at is None or now < self.expires_at)

    def is_due(self, now: float, refresh: float) -> bool:
        if not self.holds(now):
            return True
        life = refresh if self.expires_at is None else (self.expires_at - self.fetched_at) * _RENEWED_AT
        return now >= self.fetched_at + life


class Stores:
    """The stores of a process, and what they answered. From any thread; `fetch` and `read` may wait for an answer."""

    def __init__(self) -> None:
        self._points: dict[str, EntryPoint] | None = None
        self._made: dict[str, SecretStore] = {}
        self._held: dict[Place, _Held] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._process = 0
        self._lock = threading.Lock()

    def add(self, scheme: str, store: SecretStore) -> None:
        """Adds a store, or one in place of another."""
        with self._lock:
            self._made[scheme] = store
            self._held = {place: held for place, held in self._held.items() if place[0] != scheme}

    def schemes(self) -> set[str]:
        """What can stand before the colon of a reference."""
        return {"env", "file", *self._made, *self._installed()}

    def read(self, scheme: str, path: str) -> str:
        """The value of a reference, learned as a secret where it comes from a store.

        Raises `AbsentError`, `RefusedError`, and `UnavailableError` (`secret.unavailable`) where a store does not answer.
        """
        if scheme == "env":
            return _variable(path)
        if scheme == "file":
            return _file(path)
        place, now = (scheme, path), time.time()
        held = self._held.get(place)
        # Who is on an event loop does not wait for what another thread renews in time.
        if held is None or not held.holds(now) or not (_on_event_loop() or not held.is_due(now, self._refresh(place))):
            self.fetch([place])
            held = self._held[place]
        if held.holds(time.time()):
            assert held.value is not None
            return held.value
        if isinstance(held.trouble, AbsentError):
            raise AbsentError(str(held.trouble))
        raise self._unavailable(place, held)

    def fetch(self, places: Iterable[Place]) -> None:
        """Asks for what of these is not known or is to be asked for again, all at once. Waits for the answers."""
        now = time.time()
        due = [one for one in dict.fromkeys(places) if self._is_due(one, now)]
        if due:
            asyncio.run_coroutine_threadsafe(self._ask_all(due), self._running()).result()

    def trouble(self, places: Iterable[Place]) -> TrunklineError | None:
        """Why one of these has no value although it may be there: its store did not answer. Asks nobody."""
        now = time.time()
        for place in places:
            held = self._held.get(place)
            if held is not None and not held.holds(now) and not isinstance(held.trouble, AbsentError):
                return self._unavailable(place, held)
        return None

    def _is_due(self, place: Place, now: float) -> bool:
        held = self._held.get(place)
        return held is None or held.is_due(now, self._refresh(place))

    def _refresh(self, place: Place) -> float:
        store = self._made.get(place[0])
        return store.refresh if store is not None else 0.0

    async def _ask_all(self, places: Iterable[Place]) -> None:
        await asyncio.gather(*(self._ask(place) for place in places))

    async def _ask(self, place: Place) -> None:
        held = self._held.setdefault(place, _Held())
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                value, expires_at = await self._store(place[0]).resolve(place[1])
            if not isinstance(value, str) or len(value) > MAX_BYTES:
                raise TypeError(f"it answered with no text of at most {MAX_BYTES // 1024} KiB")
        except LookupError as error:
            held.value, held.trouble = None, AbsentError(_said(error) or "it is not there")
        except TimeoutError:
            held.trouble = TimeoutError(f"no answer in {ANSWER_SECONDS:g} s")
        except Exception as error:  # noqa: BLE001 (a store is anybody's code, and stops nothing but who waits for it)
            held.trouble = error
        else:
            learn(value)
            held.value, held.expires_at, held.fetched_at, held.trouble = value, expires_at, time.time(), None

    def _store(self, scheme: str) -> SecretStore:
        """The store of a scheme, made where it is the first time. On the loop of the stores."""
        made = self._made.get(scheme)
        if made is None:
            point = self._installed()[scheme]
            made = self._made[scheme] = point.load()()
        return made

    def _installed(self) -> Mapping[str, EntryPoint]:
        if self._points is None:
            self._points = {point.name: point for point in entry_points(group=GROUP)}
        return self._points

    def _running(self) -> asyncio.AbstractEventLoop:
        """The loop of the stores. A fork has its parent's memory, and none of its threads."""
        with self._lock:
            if self._loop is None or self._process != os.getpid():
                self._loop, self._process = asyncio.new_event_loop(), os.getpid()
                threading.Thread(target=self._loop.run_forever, name="secret stores", daemon=True).start()
            return self._loop

    @staticmethod
    def _unavailable(place: Place, held: _Held) -> TrunklineError:
        reason = _said(held.trouble) if held.trouble is not None else "its value has come to its end"
        return UnavailableError(
            f"${{{place[0]}:{place[1]}}} can't be resolved: its store does not answer: {reason}",
            hint="it is asked again; see whether the store is up, and what it says of who asks",
            code="secret.unavailable",
        )


def _said(error: BaseException) -> str:
    if isinstance(error, TrunklineError):
        return str(error)
    told = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return told if isinstance(error, (LookupError, TimeoutError)) else f"{type(error).__name__}: {told}"


def _on_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _variable(name: str) -> str:
    reason = variable_refusal(name)
    if reason is not None:
        raise RefusedError(reason)
    value = os.environ.get(name)
    if value is None:
        raise AbsentError("it is not there")
    return value


def _file(path: str) -> str:
    try:
        real = os.path.realpath(path)
        reason = file_refusal(real)
        if reason is not None:
            raise RefusedError(reason)
        return text_of(real)
    except ValueError as error:
        raise AbsentError(str(error)) from error


def text_of(path: str) -> str:
    """The text of a file without the ends of its last line. Raises `AbsentError`. What has no end, or is waited for, is not read."""
    try:
        # A pipe would be waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise AbsentError(getattr(error, "strerror", None) or str(error)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            raise AbsentError("it is a directory" if stat.S_ISDIR(mode) else "it is no file")
        content = b""
        # It may grow while it is read: no more is taken than is allowed, and one byte that tells.
        while len(content) <= MAX_BYTES and (more := os.read(descriptor, MAX_BYTES + 1 - len(content))):
            content += more
    except OSError as error:
        raise AbsentError(error.strerror or str(error)) from error
    finally:
        os.close(descriptor)
    if len(content) > MAX_BYTES:
        raise AbsentError(f"it is larger than {MAX_BYTES // 1024} KiB")
    try:
        return content.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise AbsentError("it is not UTF-8") from error


STORES = Stores()
"""Those of this process."""


def register_store(scheme: str, store: SecretStore) -> None:
    """Adds a store to this process: for programs and tests. Packages bring theirs by the entry point group `trunkline.secrets`."""
    if not (scheme.isascii() and scheme.isalpha() and scheme.islower()) or scheme in {"env", "file"}:
        raise ConfigurationError(f"no store can be called {scheme!r}", hint="use small letters, and a name of its own")
    STORES.add(scheme, store)


def refused_reference(reference: str, scheme: str, path: str, reason: str) -> ConfigurationError:
    """That the operator of a worker does not allow what a reference names."""
    return ConfigurationError(
        f"{reference} is not resolved here: {reason}", hint=advice(scheme, path), code="secret.not_allowed"
    )
