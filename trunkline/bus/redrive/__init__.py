"""Redrive: jobs that send dead letters again, once each, in order."""
