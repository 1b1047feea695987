"""The bus: everything that moves records through Kafka."""
