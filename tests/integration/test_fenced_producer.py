"""A producer that another one fences is told so, whatever its client has to log at that moment."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaException

from tests.conftest import KafkaUnderTest, MakeTopic
from trunkline.core.log import KafkaClientLog, get_logger
from trunkline.kafkaclient import Producer

pytestmark = pytest.mark.kafka


@pytest.mark.parametrize("call", ["flush", "commit_transaction"])
def test_a_fenced_producer_raises_kafkas_error(kafka: KafkaUnderTest, make_topic: MakeTopic, call: str) -> None:
    topic = make_topic()
    config = kafka.client_config(
        transactional_id=topic,
        debug="eos,broker,protocol",  # lines to log while the error is raised
        logger=KafkaClientLog(get_logger(__name__)),
        error_cb=lambda _: None,
    )
    former = Producer(config)
    former.init_transactions(20)
    former.begin_transaction()
    former.produce(topic, b"first")
    former.flush(10)
    Producer(config).init_transactions(20)
    former.produce(topic, b"second")
    with pytest.raises(KafkaException) as raised:
        getattr(former, call)(10)
    assert raised.value.args[0].fatal()
