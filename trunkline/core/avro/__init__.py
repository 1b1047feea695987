"""Avro schemas in their JSON form: what keeps data from being one, records taken apart, and what can be written with what."""
