"""Waiting for the embedded broker to be healthy, and writing its first user."""

from __future__ import annotations

import logging
import socket
import struct
import time
from collections.abc import Callable, Mapping
from typing import Any

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)

from trunkline.bus.embedded.options import ScramOptions
from trunkline.core.log import KafkaClientLog
from trunkline.kafkaclient import AdminClient

_log = logging.getLogger(__name__)
_log.setLevel(logging.ERROR)  # the client's own lines about refused connections while the broker starts

_PAUSE = 0.02
_CALL_TIMEOUT = 5.0
_API_VERSIONS, _QUESTION = 18, 1
#: RFC 7677 asks for at least 4096, which is also Kafka's least.
_ITERATIONS = 8192


def wait_listening(host: str, port: int, *, still_running: Callable[[], bool], deadline: float) -> bool:
    """Wait until a port accepts connections; False when the process ended or the deadline (monotonic) passed."""
    while still_running() and time.monotonic() < deadline:
        try:
            with socket.create_connection((host, port), timeout=1):
                return True
        except OSError:
            time.sleep(_PAUSE)
    return False


def answers(host: str, port: int, timeout: float) -> bool:
    """Whether a broker answers a question on this port within `timeout` seconds: a process that is stopped still accepts connections.

    The question is ApiVersions version 0 (https://kafka.apache.org/protocol), which is answered before anybody has signed in.
    """
    asked = struct.pack(">hhih", _API_VERSIONS, 0, _QUESTION, -1)
    try:
        with socket.create_connection((host, port), timeout=timeout) as connection:
            connection.sendall(struct.pack(">i", len(asked)) + asked)
            answer = b""
            while len(answer) < 8:
                more = connection.recv(8 - len(answer))
                if not more:
                    return False
                answer += more
    except OSError:
        return False
    return bool(struct.unpack(">ii", answer)[1] == _QUESTION)


def admin_client(config: Mapping[str, str]) -> AdminClient:
    """An admin client that is quiet about a broker that is not there yet."""
    quiet: dict[str, Any] = {
        **config,
        "error_cb": lambda _error: None,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 200,
        "log.connection.close": False,
    }
    return AdminClient(quiet, logger=KafkaClientLog(_log))


def wait_answering(config: Mapping[str, str], *, still_running: Callable[[], bool], deadline: float) -> str | None:
    """Wait until a client with this configuration gets an answer; the cluster id, or None as `wait_listening`."""
    admin = admin_client(config)
    while still_running() and time.monotonic() < deadline:
        try:
            cluster = admin.describe_cluster(request_timeout=_CALL_TIMEOUT).result(_CALL_TIMEOUT + 1)
        except (KafkaException, TimeoutError):
            time.sleep(_PAUSE)
            continue
        if cluster.nodes:
            return str(cluster.cluster_id)
        time.sleep(_PAUSE)
    return None


def write_user(
    config: Mapping[str, str], user: ScramOptions, *, still_running: Callable[[], bool], deadline: float
) -> bool:
    """Write the administrator's SCRAM credential over the broker's internal listener; False as `wait_listening`."""
    credential = UserScramCredentialUpsertion(
        user.username, ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, _ITERATIONS), user.password.encode()
    )
    admin = admin_client(config)  # its futures end with it
    while still_running() and time.monotonic() < deadline:
        try:
            for future in admin.alter_user_scram_credentials([credential], request_timeout=_CALL_TIMEOUT).values():
                future.result(_CALL_TIMEOUT + 1)
        except (KafkaException, TimeoutError):
            time.sleep(_PAUSE)
            continue
        return True
    return False
