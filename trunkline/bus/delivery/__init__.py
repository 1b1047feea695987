"""Delivery: on the event loop, what is ready is called out in order, and its verdicts are acted on."""
