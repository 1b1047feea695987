"""The jars of Apache Kafka: which they are, where they are kept, and how they get there.

`jars.lock` beside this module names each jar with its SHA-256. A jar in the cache is used only when its checksum is the
locked one, so neither a broken download nor a changed file ever reaches the JVM. Once all are there, no network is used.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trunkline.core.errors import UnavailableError

LOCK_FILE = Path(__file__).with_name("jars.lock")

#: A mirror of Maven Central to download from, for networks that reach only their own.
MIRROR = "TRUNKLINE_MAVEN_URL"

_ATTEMPTS = 3
_PARALLEL = 4
_NETWORK_TIMEOUT = 30


@dataclass(frozen=True, slots=True)
class Jar:
    """One locked jar: its Maven coordinate (`group:artifact:version`), its SHA-256 in hex and its size in bytes."""

    coordinate: str
    sha256: str
    size: int

    @property
    def filename(self) -> str:
        """The name under which the jar lies in the cache."""
        _, artifact, version = self.coordinate.split(":")
        return f"{artifact}-{version}.jar"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the first download is."""

    jars_done: int
    jars_total: int
    bytes_done: int
    bytes_total: int


OnProgress = Callable[[Progress], None]


def cache_folder() -> Path:
    """`$TRUNKLINE_CACHE`, else `$XDG_CACHE_HOME/trunkline`, else `~/.cache/trunkline` (XDG Base Directory Specification)."""
    own = os.environ.get("TRUNKLINE_CACHE")
    if own:
        return Path(own).absolute()  # the JVM has another working directory
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg).absolute() if xdg else Path.home() / ".cache") / "trunkline"


def read_lock(path: Path = LOCK_FILE) -> list[Jar]:
    """The locked jars, in the order of the class path."""
    jars = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            coordinate, sha256, size = line.split()
            jars.append(Jar(coordinate, sha256, int(size)))
    return jars


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def ensure_jars(on_progress: OnProgress | None = None, *, cache: Path | None = None) -> list[Path]:
    """The paths of all locked jars, verified; those missing are downloaded first.

    Raises `UnavailableError` (`embedded.checksum`) when a jar is not the locked one, and (`embedded.download`) when one
    can't be had.
    """
    folder = (cache or cache_folder()) / "jars"
    jars = read_lock()
    if any(not (folder / jar.filename).exists() for jar in jars):
        _download_missing(jars, folder, on_progress)
    paths = [folder / jar.filename for jar in jars]
    with ThreadPoolExecutor(_PARALLEL, thread_name_prefix="jar") as pool:  # hashing lets go of the interpreter lock
        list(pool.map(_verify, jars, paths))
    return paths


def _verify(jar: Jar, path: Path) -> None:
    found = sha256_of(path)
    if found != jar.sha256:
        raise UnavailableError(
            f"{jar.coordinate} has the checksum sha256:{found}, expected sha256:{jar.sha256}",
            where=str(path),
            hint="the file is damaged or was changed: remove it, and it is downloaded again",
            code="embedded.checksum",
        )


def _download_missing(jars: list[Jar], folder: Path, on_progress: OnProgress | None) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder.parent / "jars.flock").open("ab")
    except OSError as error:
        raise UnavailableError(
            f"the cache can't be written: {error}",
            hint="set TRUNKLINE_CACHE to a folder of yours",
            code="embedded.cache",
        ) from error
    # One downloader at a time: whoever waits finds the jars there and downloads nothing.
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        missing = [jar for jar in jars if not (folder / jar.filename).exists()]
        if not missing:
            return
        count = _Counter(missing, on_progress)
        with (
            _system_certificates(),
            _workspace(folder) as work,
            ThreadPoolExecutor(_PARALLEL, thread_name_prefix="jar") as pool,
        ):
            # `list` waits for all and raises the first failure; what arrived before it stays in the cache.
            list(pool.map(lambda jar: _download(jar, folder, work / jar.filename, count), missing))


@contextmanager
def _system_certificates() -> Iterator[None]:
    """Has jgo's client trust what this machine trusts, such as a company's proxy, and not only the bundle it ships.

    Within, `REQUESTS_CA_BUNDLE` names the system's bundle, unless it or `CURL_CA_BUNDLE` names one already.
    """
    found = next((path for path in _BUNDLES if path and Path(path).is_file()), None)
    if found is None or os.environ.get(_BUNDLE_VARIABLE) or os.environ.get("CURL_CA_BUNDLE"):
        yield
        return
    os.environ[_BUNDLE_VARIABLE] = found
    try:
        yield
    finally:
        os.environ.pop(_BUNDLE_VARIABLE, None)


_BUNDLE_VARIABLE = "REQUESTS_CA_BUNDLE"
_BUNDLES = (
    ssl.get_default_verify_paths().cafile,
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, Red Hat
    "/etc/ssl/ca-bundle.pem",  # SUSE
)


@contextmanager
def _workspace(folder: Path) -> Iterator[Path]:
    work = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Counter:
    """Adds up what the download threads report; the callback is never called by two of them at once."""

    def __init__(self, jars: list[Jar], on_progress: OnProgress | None) -> None:
        self._total = (len(jars), sum(jar.size for jar in jars))
        self._jars = self._bytes = 0
        self._on_progress = on_progress
        self._guard = threading.Lock()
        self.add(0)

    def add(self, size: int, *, finished: bool = False) -> None:
        with self._guard:
            self._bytes += size
            self._jars += finished
            if self._on_progress is not None:
                self._on_progress(Progress(self._jars, self._total[0], self._bytes, self._total[1]))


def _download(jar: Jar, folder: Path, work: Path, count: _Counter) -> None:
    """Fetch into a folder of its own, verify, and only then rename into the cache."""
    for attempt in range(1, _ATTEMPTS + 1):
        received = 0

        def add(size: int) -> None:
            nonlocal received
            received += size
            count.add(size)

        try:
            path = fetch(jar.coordinate, work / str(attempt), add)
            break
        except (
            OSError,
            RuntimeError,
        ) as error:  # requests' errors are OSErrors; jgo tells a status code by RuntimeError
            count.add(-received)
            if attempt == _ATTEMPTS:
                raise UnavailableError(
                    f"{jar.coordinate} can't be downloaded: {error}",
                    hint=f"the first start needs the network; name a mirror by {MIRROR}, or use another broker by --bootstrap",
                    code="embedded.download",
                ) from error
    _verify(jar, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.replace(folder / jar.filename)
    count.add(jar.size - received, finished=True)


def fetch(coordinate: str, repository: Path, add: Callable[[int], None] | None = None) -> Path:
    """Download one jar by its coordinate into an empty folder, and return where it is."""
    from jgo.maven import MavenContext, PythonResolver  # only where a download is due: it takes 0.3 s to import

    @contextmanager
    def report(_filename: str, _size: int) -> Iterator[Callable[[int], None]]:
        yield add or (lambda _size: None)

    mirror = os.environ.get(MIRROR)
    context = MavenContext(
        resolver=PythonResolver(progress_callback=report),
        repo_cache=repository,
        local_repos=[],
        remote_repos={"mirror": mirror.rstrip("/")} if mirror else None,
        timeout=_NETWORK_TIMEOUT,
    )
    return Path(context.create_dependency(coordinate).artifact.resolve())
