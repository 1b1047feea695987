"""Streams: consume, process, produce in one Kafka transaction."""
