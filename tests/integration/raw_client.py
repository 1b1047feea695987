"""A Kafka client without Python's manners: what other languages may write, and confluent-kafka would not."""

from __future__ import annotations

import ctypes
from pathlib import Path

import confluent_kafka

_TOPIC, _VALUE, _KEY, _FLAGS, _HEADER, _END, _COPY = 1, 4, 5, 7, 9, 0, 2
"""Of librdkafka's `rd_kafka_vtype_t`, and RD_KAFKA_MSG_F_COPY (rdkafka.h)."""


def write_with_header(bootstrap: str, topic: str, value: bytes, key: bytes, name: bytes) -> None:
    """Writes a record with a header of any name, by the library that confluent-kafka brings along."""
    libraries = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    lib = ctypes.CDLL(str(next(libraries.glob("librdkafka*"))))
    lib.rd_kafka_conf_new.restype = lib.rd_kafka_new.restype = ctypes.c_void_p
    said = ctypes.create_string_buffer(512)
    conf = ctypes.c_void_p(lib.rd_kafka_conf_new())
    lib.rd_kafka_conf_set(conf, b"bootstrap.servers", bootstrap.encode(), said, ctypes.c_size_t(512))
    client = ctypes.c_void_p(lib.rd_kafka_new(0, conf, said, ctypes.c_size_t(512)))
    try:
        refused = lib.rd_kafka_producev(
            client,
            *(_TOPIC, ctypes.c_char_p(topic.encode())),
            *(_VALUE, ctypes.c_char_p(value), ctypes.c_size_t(len(value))),
            *(_KEY, ctypes.c_char_p(key), ctypes.c_size_t(len(key))),
            *(_FLAGS, _COPY),
            *(_HEADER, ctypes.c_char_p(name), ctypes.c_char_p(b"x"), ctypes.c_ssize_t(1)),
            _END,
        )
        assert not refused, f"librdkafka's error {refused}"
        assert not lib.rd_kafka_flush(client, 10_000), "the record was not written"
    finally:
        lib.rd_kafka_destroy(client)
