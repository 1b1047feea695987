"""Kafka as the bus uses it: clients with the options that the rules ask for, errors as ours, records written and read."""

from trunkline.bus.kafka.bounded import OFFSETS_SECONDS, BoundedCalls
from trunkline.bus.kafka.cluster import (
    EARLIEST,
    LATEST,
    end_offsets,
    offset_of_each,
    offsets_of,
    patiently,
    topics_of,
    watermarks,
)
from trunkline.bus.kafka.errors import passes, translate
from trunkline.bus.kafka.health import KafkaHealth
from trunkline.bus.kafka.probe import ping
from trunkline.bus.kafka.producing import (
    UNUSED_SECONDS,
    LazyProducer,
    RestingProducer,
    UnawaitedProducer,
    produce,
    produce_all_and_wait,
    produce_and_wait,
    transactional_producer,
)
from trunkline.bus.kafka.reading import (
    UNREADABLE,
    closing,
    headers_of,
    offset_of,
    read_all,
    read_range,
    records_of,
    wire_headers_of,
    without_headers,
)
from trunkline.bus.kafka.refusals import KafkaUnusableError
from trunkline.bus.kafka.settings import KafkaSettings
from trunkline.kafkaclient import answered

__all__ = [
    "EARLIEST",
    "LATEST",
    "OFFSETS_SECONDS",
    "UNREADABLE",
    "UNUSED_SECONDS",
    "BoundedCalls",
    "KafkaHealth",
    "KafkaSettings",
    "KafkaUnusableError",
    "LazyProducer",
    "RestingProducer",
    "UnawaitedProducer",
    "answered",
    "closing",
    "end_offsets",
    "headers_of",
    "offset_of",
    "offset_of_each",
    "offsets_of",
    "passes",
    "patiently",
    "ping",
    "produce",
    "produce_all_and_wait",
    "produce_and_wait",
    "read_all",
    "read_range",
    "records_of",
    "topics_of",
    "transactional_producer",
    "translate",
    "watermarks",
    "wire_headers_of",
    "without_headers",
]
