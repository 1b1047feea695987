"""Asks an HTTP API for what is new, at an interval."""
