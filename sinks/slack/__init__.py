"""Slack: posts a message for each event, by the Web API or an incoming webhook."""
