"""Delivers events to any HTTP endpoint."""
