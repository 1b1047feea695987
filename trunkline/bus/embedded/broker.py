"""Apache Kafka as a child process: one node, KRaft, on the loopback address, with its data in the home folder.

One broker survives a SIGKILL of its process, because what it acknowledged is in the operating system's page cache. It does
not survive a power loss, which takes the page cache with it.
"""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import threading
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from trunkline.bus.embedded import health
from trunkline.bus.embedded.causes import FULL, cause_of, explains_itself, how_it_ended
from trunkline.bus.embedded.cds import ClassArchive, class_archive
from trunkline.bus.embedded.disk import Room, ended_full, folder_error, no_room, room_at
from trunkline.bus.embedded.jars import OnProgress, cache_folder, ensure_jars
from trunkline.bus.embedded.java import find_java
from trunkline.bus.embedded.names import JvmNames, for_people, jvm_environment, jvm_names
from trunkline.bus.embedded.options import INTERNAL_USER, KAFKA_VERSION, OWN_USER, EmbeddedOptions
from trunkline.bus.embedded.ownership import FolderLock
from trunkline.bus.embedded.password import keep_to_oneself, kept_password
from trunkline.bus.embedded.ports import choose_ports, require_free
from trunkline.bus.embedded.processes import end_broker, find_brokers
from trunkline.bus.embedded.properties import (
    HOST,
    Passwords,
    Ports,
    command,
    jvm_arguments,
    logging_properties,
    render_properties,
    server_properties,
)
from trunkline.bus.embedded.registration import end_registration, left_registered
from trunkline.bus.embedded.running import RunningBroker, remove_running, write_private, write_running
from trunkline.bus.embedded.storage import data_gone, format_storage, require_same_cluster, stored_cluster_id
from trunkline.bus.embedded.tls import ensure_certificates
from trunkline.core.errors import UnavailableError
from trunkline.core.log import get_logger

log = get_logger(__name__)
_ORPHAN_TIMEOUT = 15.0
_PORT_ATTEMPTS = 3
_TAKEN = "Address already in use"
#: What a JVM returns that was asked to end and ran its shutdown hooks: 128 + SIGTERM.
_ENDED_BY_SIGTERM = 143
_OLD_LOG_LIMIT = 5 * 1024 * 1024


class EmbeddedKafka:
    """The embedded broker of one home folder.

    One process at a time owns a home folder, by a lock that ends with the process. What a killed owner left, a broker still
    running or files of one that is gone, is put in order at the next start; the data are kept.

    From its first start to `stop` it is one broker, whatever happens to its process: another `start` gives it the address and the
    data that it had, or fails. Its clients wait for it there.
    """

    def __init__(
        self, home: Path, options: EmbeddedOptions | None = None, on_progress: OnProgress | None = None
    ) -> None:
        self.home = home.resolve()
        self.options = options or EmbeddedOptions()
        self.running: RunningBroker | None = None
        self._kafka = self.home / "kafka"
        self._on_progress = on_progress
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = FolderLock(self.home)
        self._archive: ClassArchive | None = None
        self._ports: Ports | None = None
        self._promised: RunningBroker | None = None
        self._log_begins = 0
        self._abandoned = threading.Event()
        self._password: str | None = None
        """Of our own clients, from the first start on; None where they sign in otherwise or not at all."""

    @property
    def log_file(self) -> Path:
        """The broker's own log."""
        return self._kafka / "server.log"

    @property
    def is_alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> RunningBroker:
        """Start the broker and wait until it is healthy; one that this object runs already is returned as it is.

        Raises `UnavailableError`: what `require_startable` says; `embedded.java`, `embedded.download` and `embedded.checksum` when
        what the broker needs is missing or changed; and `embedded.start` with the cause and the place of its log when it does not
        come up.
        """
        if self.running is not None and self.is_alive:
            return self.running
        try:
            self.require_startable()
            self._reap()
            self.running = self._promised = self._launch()
        except OSError as error:
            self._give_up()
            raise folder_error(error, self.home) from error
        except BaseException:
            self._give_up()
            raise
        return self.running

    def require_startable(self) -> None:
        """Takes the folder, and finds what would keep the broker from starting, as far as that takes no time.

        Raises `UnavailableError`: `embedded.in_use` when another process owns the folder, `embedded.home` when it can't be written,
        `embedded.disk_full` when it has no room, `embedded.damaged` when its data are not whole; and of a broker that ran before
        `embedded.data_gone` when its data are another's, and `embedded.port` when its port is.
        """
        if self._lock.is_held and not self._lock.is_in_place:
            raise data_gone(self.home, "the folder was deleted, moved or replaced")
        self._lock.take()
        try:
            room = room_at(self.home)
            if not room.least:
                raise no_room(room, self.home)
            if self._promised is None:
                stored_cluster_id(self._kafka)
                return
            require_same_cluster(self._kafka, self._promised.cluster_id)
            if not self.is_alive and not find_brokers(self.home):
                require_free(int(self._promised.bootstrap.rpartition(":")[2]), self._kafka)
        except OSError as error:
            raise folder_error(error, self.home) from error

    def stop(self, timeout: float = 20.0) -> None:
        """End the broker in order, and kill it when that takes longer than `timeout` seconds."""
        self._promised = None
        self._abandoned.clear()
        self._end(timeout)

    def kill(self) -> None:
        """SIGKILL the broker, and leave its files as a crash leaves them."""
        if self._process is not None:
            self._process.kill()
        self._reap()
        self._lock.release()

    def abandon(self) -> None:
        """From another thread: a `start` that is under way fails soon, as do all later ones."""
        self._abandoned.set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- looking after it

    def why_ended(self) -> UnavailableError | None:
        """How the broker ended that ran until now; None while it runs, and where none ran."""
        if self.running is None or self._process is None or (code := self._process.poll()) is None:
            return None
        return self._failure(code)

    def answers(self, timeout: float) -> bool:
        """Whether the broker answers within `timeout` seconds."""
        return self._ports is not None and health.answers(HOST, self._own_port(self._ports), timeout)

    def end_hung(self) -> None:
        """SIGKILL a broker that does not answer any more. `why_ended` and `start` take it from there."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def require_folder(self) -> None:
        """Ends the broker where its folder is gone: what it took from now on would be lost. Raises `UnavailableError`."""
        if self._lock.is_held and not (self._lock.is_in_place and (self._kafka / "data").is_dir()):
            self.end_hung()
            raise data_gone(self.home, "the folder was deleted, moved or replaced")

    def announce(self) -> bool:
        """Writes `broker.json` again where somebody damaged it, and says whether that was so. Raises OSError."""
        assert self.running is not None
        return write_running(self.home, self.running)

    def room(self) -> Room:
        """The room for its data. Raises OSError."""
        return room_at(self.home)

    # -- starting

    def _launch(self) -> RunningBroker:
        java, jars = find_java(), ensure_jars(self._on_progress)
        for pid in find_brokers(self.home):  # we own the folder, so whoever started it is gone
            end_broker(pid, self.home, _ORPHAN_TIMEOUT)
        remove_running(self.home)
        self._kafka.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in (self.home, self._kafka):
            keep_to_oneself(folder)
        names = jvm_names(self._kafka, cache_folder())
        class_path = [names.in_cache("jars", path.name) for path in jars]
        write_private(self._kafka / "java.args", jvm_arguments(self.options.heap, class_path, names))
        write_private(self._kafka / "log4j2.properties", logging_properties(names.in_kafka(self.log_file.name)))
        self._archive = class_archive(java, jars, names)
        if self.options.open:
            log.warning(
                "the embedded broker is open: every program and user of this machine may read, write and delete everything in it, and "
                "apply manifests, which are carried out with the rights of this user",
                hint="start it without --open (TRUNKLINE_OPEN)",
                code="embedded.open",
            )
        elif self.options.scram is None:
            self._password = kept_password(self._kafka, self._password)
        client_options = self._client_options()
        promised = int(self._promised.bootstrap.rpartition(":")[2]) if self._promised is not None else None
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self._ports = choose_ports(self._kafka / "ports.json", fresh=attempt > 1, promised=promised)
            running = self._launch_on(java, names, self._ports, client_options, last=attempt == _PORT_ATTEMPTS)
            if running is not None:
                return running
        raise AssertionError("the last attempt returns or raises")

    def _launch_on(
        self, java: Path, names: JvmNames, ports: Ports, client_options: dict[str, str], *, last: bool
    ) -> RunningBroker | None:
        """Start on these ports; None when another process took one of them meanwhile and there is another try."""
        password = secrets.token_urlsafe(24)
        properties = server_properties(self.options, ports, names, Passwords(password, self._password))
        write_private(self._kafka / "server.properties", render_properties(properties))
        ended_in_order = not left_registered(self._kafka)
        alone = partial(self._command, java, names)
        cluster_id = stored_cluster_id(self._kafka)
        if cluster_id is None:
            cluster_id = format_storage(alone, self._kafka, names.in_kafka("server.properties"))
        self._rotate_log()
        if not ended_in_order:
            end_registration(
                lambda file: alone("kafka.Kafka", names.in_kafka(file)),
                properties,
                self._kafka,
                self.log_file,
                timeout=self.options.start_timeout,
                wanted=lambda: not self._abandoned.is_set(),
            )
        deadline = time.monotonic() + self.options.start_timeout
        self._spawn(java, names)
        bootstrap = f"{HOST}:{ports.client}"
        if self._becomes_healthy(
            ports, _internal_config(ports, password), {"bootstrap.servers": bootstrap, **client_options}, deadline
        ):
            assert self._process is not None
            running = RunningBroker(bootstrap, self._process.pid, cluster_id, KAFKA_VERSION, client_options)
            write_running(self.home, running)
            return running
        ended = None if self._process is None else self._process.poll()
        if ended is not None and not last and _TAKEN in self._cause():
            self._reap()
            return None
        if self._abandoned.is_set():
            raise UnavailableError("the start of the embedded broker was given up", code="embedded.abandoned")
        raise self._failure(ended)

    def _spawn(self, java: Path, names: JvmNames) -> None:
        sharing = self._archive.arguments if self._archive is not None else []
        self._log_begins = self.log_file.stat().st_size if self.log_file.exists() else 0
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                command(java, self.home, names, *sharing, "kafka.Kafka", names.in_kafka("server.properties")),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=self._kafka,
                env=jvm_environment(),
                start_new_session=True,  # Ctrl-C is for us: the broker goes last, after what still writes to it
            )

    def _becomes_healthy(self, ports: Ports, internal: dict[str, str], client: dict[str, str], deadline: float) -> bool:
        if not health.wait_listening(HOST, self._own_port(ports), still_running=self._is_awaited, deadline=deadline):
            return False
        if self.options.scram is not None:
            if health.wait_answering(internal, still_running=self._is_awaited, deadline=deadline) is None:
                return False
            if not health.write_user(internal, self.options.scram, still_running=self._is_awaited, deadline=deadline):
                return False
        return health.wait_answering(client, still_running=self._is_awaited, deadline=deadline) is not None

    def _is_awaited(self) -> bool:
        return self.is_alive and not self._abandoned.is_set()

    def _own_port(self, ports: Ports) -> int:
        """The port of the listener by which we ask: one without TLS."""
        return ports.internal if self.options.secured else ports.client

    def _client_options(self) -> dict[str, str]:
        options: dict[str, str] = {}
        if self.options.secured:
            options["security.protocol"] = self.options.client_protocol
        if self.options.scram is not None:
            options |= _sign_in("SCRAM-SHA-512", self.options.scram.username, self.options.scram.password)
        elif self._password is not None:
            options |= _sign_in("PLAIN", OWN_USER, self._password)
        if self.options.tls:
            options["ssl.ca.location"] = str(ensure_certificates(self._kafka / "tls"))
        return options

    def _command(self, java: Path, names: JvmNames, *main: str) -> list[str]:
        """The command line of a JVM that is not the broker, and so none whose classes are archived."""
        sharing = self._archive.arguments if self._archive is not None and self._archive.pending is None else []
        return command(java, self.home, names, *sharing, *main)

    # -- ending

    def _end(self, timeout: float) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                ended = self._process.wait(timeout)
            except subprocess.TimeoutExpired:
                self._process.kill()
            else:
                if ended == _ENDED_BY_SIGTERM and self._archive is not None:
                    self._archive.keep()
        self._reap()
        if self._lock.is_held:
            with contextlib.suppress(OSError):  # it is not believed without its broker
                remove_running(self.home)
        self._lock.release()

    def _give_up(self) -> None:
        """After a start that failed. The folder stays ours where clients wait for the broker."""
        if self._promised is None:
            self._end(timeout=5.0)
            return
        if self._process is not None:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
        if self._archive is not None:
            self._archive.discard()
        self._archive = None
        self._process = self.running = None

    # -- its logs

    @property
    def _console(self) -> Path:
        return self._kafka / "console.log"

    def _rotate_log(self) -> None:
        """Keep the log of the run before; log4j itself rolls a long run's."""
        if self.log_file.exists() and self.log_file.stat().st_size > _OLD_LOG_LIMIT:
            self.log_file.replace(self.log_file.with_name("server.log.old"))

    def _cause(self) -> str:
        return for_people(cause_of([(self._console, 0), (self.log_file, self._log_begins)]), self._kafka)

    def _has_no_room(self) -> bool:
        """Whether the disk is full, which the last words of a log on it may be cut too short to say."""
        try:
            return not self.room().least
        except OSError:
            return False

    def _failure(self, code: int | None) -> UnavailableError:
        """What became of the broker, with the cause in one line; no `code` where it did not come up. Java's traces are in its log."""
        what = f"was not healthy in {self.options.start_timeout:g} s" if code is None else how_it_ended(code)
        cause = "" if code is not None and explains_itself(code) else self._cause()
        if cause and (any(sign in cause for sign in FULL) or self._has_no_room()):
            return ended_full(cause, self.home)
        return UnavailableError(
            f"the embedded broker {what}" + (f": {cause}" if cause else ""),
            where=str(self.log_file),
            hint="its whole log is there",
            code="embedded.start",
        )


def _internal_config(ports: Ports, password: str) -> dict[str, str]:
    return {
        "bootstrap.servers": f"{HOST}:{ports.internal}",
        "security.protocol": "SASL_PLAINTEXT",
        **_sign_in("PLAIN", INTERNAL_USER, password),
    }


def _sign_in(mechanism: str, user: str, password: str) -> dict[str, str]:
    return {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": password}
