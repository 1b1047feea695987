"""Budgets: what an external account allows, shared by all workers that call it.

Every worker appends *claims* to one partition of `_trunkline.budgets`, and every worker reads them all. A claim holds where the
log up to it leaves room, which every reader finds alike: so the broker's order of the claims is what grants slices, and their sum
never exceeds a limit, whoever dies. `standing.py` is that rule; `account.py` is one worker's side of it; `link.py` is Kafka.
"""
