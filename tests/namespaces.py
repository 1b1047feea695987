"""Names that no two tests share, and the end of the topics that bear them.

Each test has topics of its own on the broker that all share. Were they left, each question for a cluster's topics would take longer
from test to test: with 2,500 of them a suite takes twice the processor time, in the broker and in the tests.
"""

from __future__ import annotations

import contextlib
import functools
import uuid
from typing import Final

from confluent_kafka import KafkaException

from trunkline.kafkaclient import AdminClient

_given: set[str] = set()
_SECONDS: Final = 30


def new_namespace(kind: str = "t") -> str:
    """A namespace that only the caller uses; what is in it is deleted after the last test of the module."""
    namespace = f"{kind}{uuid.uuid4().hex[:8]}"
    _given.add(f"{namespace}.")
    return namespace


def delete_topics(bootstrap: str) -> None:
    """Deletes the topics of all namespaces that were given in this process. What can't be deleted stays."""
    own = tuple(_given)
    _given.clear()
    if not own:
        return
    admin = _admin(bootstrap)
    with contextlib.suppress(KafkaException):  # a broker that a test ended
        names = [name for name in admin.list_topics(timeout=_SECONDS).topics if name.startswith(own)]
        for gone in (admin.delete_topics(names, operation_timeout=_SECONDS) if names else {}).values():
            with contextlib.suppress(KafkaException):
                gone.result(_SECONDS)


@functools.cache
def _admin(bootstrap: str) -> AdminClient:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})  # it may outlive the broker by a moment
