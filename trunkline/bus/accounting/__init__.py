"""Accounting: what became of every record: ledger, trace, audit, lag, and whether it adds up."""
