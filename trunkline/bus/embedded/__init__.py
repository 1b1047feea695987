"""The embedded broker: Apache Kafka as a child process, with nothing to install by hand."""

from trunkline.bus.embedded.broker import EmbeddedKafka
from trunkline.bus.embedded.condition import BrokerCondition, broker_trouble, measure, read_condition, trouble_of
from trunkline.bus.embedded.jars import Jar, OnProgress, Progress, cache_folder, ensure_jars
from trunkline.bus.embedded.keeper import BrokerKeeper
from trunkline.bus.embedded.options import KAFKA_VERSION, EmbeddedOptions, ScramOptions
from trunkline.bus.embedded.running import RunningBroker, find_at, find_running

__all__ = [
    "KAFKA_VERSION",
    "BrokerCondition",
    "BrokerKeeper",
    "EmbeddedKafka",
    "EmbeddedOptions",
    "Jar",
    "OnProgress",
    "Progress",
    "RunningBroker",
    "ScramOptions",
    "broker_trouble",
    "cache_folder",
    "ensure_jars",
    "find_at",
    "find_running",
    "measure",
    "read_condition",
    "trouble_of",
]
