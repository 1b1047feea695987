"""The embedded broker: Apache Kafka as a child process, with nothing to install by hand."""

from trunkline.bus.embedded.broker import EmbeddedKafka
from trunkline.bus.embedded.jars import Jar, OnProgress, Progress, cache_folder, ensure_jars
from trunkline.bus.embedded.options import KAFKA_VERSION, EmbeddedOptions, ScramOptions
from trunkline.bus.embedded.running import RunningBroker, find_running

__all__ = [
    "KAFKA_VERSION",
    "EmbeddedKafka",
    "EmbeddedOptions",
    "Jar",
    "OnProgress",
    "Progress",
    "RunningBroker",
    "ScramOptions",
    "cache_folder",
    "ensure_jars",
    "find_running",
]
