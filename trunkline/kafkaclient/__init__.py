"""Kafka's client where it is not to be used as it is: it says less than it knows, or ends the process."""

from trunkline.kafkaclient.admin import AdminClient
from trunkline.kafkaclient.answers import answered
from trunkline.kafkaclient.producer import Producer

__all__ = ["AdminClient", "Producer", "answered"]
