"""Apache Kafka as a child process: one node, KRaft, on the loopback address, with its data in the home folder.

One broker survives a SIGKILL of its process, because what it acknowledged is in the operating system's page cache. It does
not survive a power loss, which takes the page cache with it.
"""

from __future__ import annotations

import base64
import fcntl
import os
import secrets
import subprocess
import time
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from types import TracebackType
from typing import Self

from trunkline.bus.embedded import health
from trunkline.bus.embedded.cds import ClassArchive, class_archive
from trunkline.bus.embedded.jars import OnProgress, ensure_jars
from trunkline.bus.embedded.java import find_java
from trunkline.bus.embedded.options import INTERNAL_USER, KAFKA_VERSION, EmbeddedOptions
from trunkline.bus.embedded.ports import choose_ports
from trunkline.bus.embedded.processes import end_broker, find_brokers
from trunkline.bus.embedded.properties import (
    HOST,
    Ports,
    command,
    jvm_arguments,
    logging_properties,
    render_properties,
    server_properties,
)
from trunkline.bus.embedded.registration import end_registration, left_registered
from trunkline.bus.embedded.running import RunningBroker, remove_running, write_private, write_running
from trunkline.bus.embedded.tls import ensure_certificates
from trunkline.core.errors import UnavailableError

_FORMAT_TIMEOUT = 60
_ORPHAN_TIMEOUT = 15.0
_PORT_ATTEMPTS = 3
_TAIL_LINES = 25
#: What a JVM returns that was asked to end and ran its shutdown hooks: 128 + SIGTERM.
_ENDED_BY_SIGTERM = 143
_OLD_LOG_LIMIT = 5 * 1024 * 1024


class EmbeddedKafka:
    """The embedded broker of one home folder.

    One process at a time owns a home folder, by a lock that ends with the process. What a killed owner left, a broker still
    running or files of one that is gone, is put in order at the next start; the data are kept.
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
        self._lock: TextIOWrapper | None = None
        self._archive: ClassArchive | None = None

    @property
    def log_file(self) -> Path:
        """The broker's own log."""
        return self._kafka / "server.log"

    def start(self) -> RunningBroker:
        """Start the broker and wait until it is healthy; one that this object runs already is returned as it is.

        Raises `UnavailableError`: `embedded.in_use` when another process owns the folder, `embedded.java`,
        `embedded.download` and `embedded.checksum` when what the broker needs is missing or changed, and `embedded.start`
        with the end of the broker's log when it does not come up.
        """
        if self.running is not None and self._is_alive():
            return self.running
        self._reap()
        self._take_lock()
        try:
            self.running = self._launch()
        except BaseException:
            self._end(timeout=5.0)
            raise
        return self.running

    def stop(self, timeout: float = 20.0) -> None:
        """End the broker in order, and kill it when that takes longer than `timeout` seconds."""
        self._end(timeout)

    def kill(self) -> None:
        """SIGKILL the broker, and leave its files as a crash leaves them."""
        if self._process is not None:
            self._process.kill()
        self._reap()
        self._release_lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- starting

    def _launch(self) -> RunningBroker:
        java, jars = find_java(), ensure_jars(self._on_progress)
        for pid in find_brokers(self.home):  # we own the folder, so whoever started it is gone
            end_broker(pid, self.home, _ORPHAN_TIMEOUT)
        remove_running(self.home)
        self._kafka.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(self._kafka / "java.args", jvm_arguments(self.options.heap, jars, self._kafka))
        write_private(self._kafka / "log4j2.properties", logging_properties(self.log_file))
        self._archive = class_archive(java, jars)
        client_options = self._client_options()
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            ports = choose_ports(self._kafka / "ports.json", fresh=attempt > 1)
            running = self._launch_on(java, ports, client_options, last=attempt == _PORT_ATTEMPTS)
            if running is not None:
                return running
        raise AssertionError("the last attempt returns or raises")

    def _launch_on(
        self, java: Path, ports: Ports, client_options: dict[str, str], *, last: bool
    ) -> RunningBroker | None:
        """Start on these ports; None when another process took one of them meanwhile and there is another try."""
        password = secrets.token_urlsafe(24)
        properties = server_properties(self.options, ports, self._kafka, password)
        write_private(self._kafka / "server.properties", render_properties(properties))
        ended_in_order = not left_registered(self._kafka)
        cluster_id = self._format_once(java)
        self._rotate_log()
        if not ended_in_order:
            alone = partial(self._command, java, "kafka.Kafka")
            end_registration(alone, properties, self._kafka, self.log_file, timeout=self.options.start_timeout)
        deadline = time.monotonic() + self.options.start_timeout
        self._spawn(java)
        bootstrap = f"{HOST}:{ports.client}"
        internal = _internal_config(ports, password) if self.options.secured else {"bootstrap.servers": bootstrap}
        if self._becomes_healthy(ports, internal, {"bootstrap.servers": bootstrap, **client_options}, deadline):
            assert self._process is not None
            running = RunningBroker(bootstrap, self._process.pid, cluster_id, KAFKA_VERSION, client_options)
            write_running(self.home, running)
            return running
        ended = None if self._process is None else self._process.poll()
        if ended is not None and not last and "Address already in use" in self._log_tail():
            self._reap()
            return None
        what = (
            f"ended with code {ended}" if ended is not None else f"was not healthy in {self.options.start_timeout:g} s"
        )
        raise UnavailableError(
            f"the embedded broker {what}; the end of its log:\n{self._log_tail()}",
            where=str(self.log_file),
            code="embedded.start",
        )

    def _spawn(self, java: Path) -> None:
        sharing = self._archive.arguments if self._archive is not None else []
        with (self._kafka / "console.log").open("wb") as console:
            self._process = subprocess.Popen(  # noqa: S603 - our own command line
                command(java, self.home, self._kafka, *sharing, "kafka.Kafka", str(self._kafka / "server.properties")),
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                cwd=self._kafka,
                start_new_session=True,  # Ctrl-C is for us: the broker goes last, after what still writes to it
            )

    def _becomes_healthy(self, ports: Ports, internal: dict[str, str], client: dict[str, str], deadline: float) -> bool:
        port = ports.internal if self.options.secured else ports.client
        if not health.wait_listening(HOST, port, still_running=self._is_alive, deadline=deadline):
            return False
        if health.wait_answering(internal, still_running=self._is_alive, deadline=deadline) is None:
            return False
        if self.options.scram is not None:
            health.write_user(internal, self.options.scram)
        if not self.options.secured:
            return True
        return health.wait_answering(client, still_running=self._is_alive, deadline=deadline) is not None

    def _client_options(self) -> dict[str, str]:
        options: dict[str, str] = {}
        if self.options.secured:
            options["security.protocol"] = self.options.client_protocol
        if self.options.scram is not None:
            options["sasl.mechanism"] = "SCRAM-SHA-512"
            options["sasl.username"] = self.options.scram.username
            options["sasl.password"] = self.options.scram.password
        if self.options.tls:
            options["ssl.ca.location"] = str(ensure_certificates(self._kafka / "tls"))
        return options

    def _format_once(self, java: Path) -> str:
        """The cluster's id; Kafka's storage is formatted with it where it is not yet."""
        data = self._kafka / "data"
        meta = data / "meta.properties"
        if meta.exists():
            pairs = (line.partition("=") for line in meta.read_text(encoding="utf-8").splitlines())
            return next((value.strip() for name, _, value in pairs if name.strip() == "cluster.id"), "")
        cluster_id = new_cluster_id()
        arguments = [
            "format",
            "--cluster-id",
            cluster_id,
            "--config",
            str(self._kafka / "server.properties"),
            "--ignore-formatted",
        ]
        try:
            subprocess.run(  # noqa: S603 - our own command line
                self._command(java, "kafka.tools.StorageTool", *arguments),
                capture_output=True,
                text=True,
                timeout=_FORMAT_TIMEOUT,
                cwd=self._kafka,
                check=True,
            )
        except subprocess.SubprocessError as error:
            said = getattr(error, "stderr", None) or getattr(error, "stdout", None) or error
            raise UnavailableError(
                f"Kafka's storage can't be formatted: {str(said).strip()}", where=str(data), code="embedded.format"
            ) from error
        return cluster_id

    def _command(self, java: Path, *main: str | Path) -> list[str]:
        """The command line of a JVM that is not the broker, and so none whose classes are archived."""
        sharing = self._archive.arguments if self._archive is not None and self._archive.pending is None else []
        return command(java, self.home, self._kafka, *sharing, *map(str, main))

    # -- ending

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

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
        if self._lock is not None:
            remove_running(self.home)
        self._release_lock()

    def _reap(self) -> None:
        if self._process is not None:
            self._process.wait()
        if self._archive is not None:
            self._archive.discard()
        self._archive = None
        self._process = self.running = None

    # -- the folder

    def _take_lock(self) -> None:
        if self._lock is not None:
            return
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            lock = (self.home / "lock").open("a+", encoding="utf-8")
        except OSError as error:
            raise UnavailableError(
                f"the folder can't be written: {error}",
                where=str(self.home),
                hint="set TRUNKLINE_HOME",
                code="embedded.home",
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            lock.close()
            raise UnavailableError(
                f"another Trunkline, process {owner}, runs its broker in this folder",
                where=str(self.home),
                hint="use that broker by --bootstrap, or another folder by TRUNKLINE_HOME",
                code="embedded.in_use",
            ) from error
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        self._lock = lock

    def _release_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _rotate_log(self) -> None:
        """Keep the log of the run before; log4j itself rolls a long run's."""
        if self.log_file.exists() and self.log_file.stat().st_size > _OLD_LOG_LIMIT:
            self.log_file.replace(self.log_file.with_name("server.log.old"))

    def _log_tail(self) -> str:
        lines: list[str] = []
        for file in (self._kafka / "console.log", self.log_file):
            if file.exists():
                lines += file.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(lines)


def new_cluster_id() -> str:
    """A random Kafka cluster id: 16 bytes in URL-safe base64, 22 characters.

    One that begins with "-" is not used: Kafka's own tools take it for an option.
    """
    while True:
        cluster_id = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
        if not cluster_id.startswith("-"):
            return cluster_id


def _internal_config(ports: Ports, password: str) -> dict[str, str]:
    return {
        "bootstrap.servers": f"{HOST}:{ports.internal}",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": INTERNAL_USER,
        "sasl.password": password,
    }
