"""Serving HTTP: listeners, their connections and TLS, and bodies within limits. What is answered is said elsewhere."""
