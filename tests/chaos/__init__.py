"""The fault campaign: what the bus does while its workers, its broker, the network and other systems fail.

`python -m tests.chaos` runs every row of the campaign at its full figures, row by row, and writes `docs/reliability.md`. The short
form of each row is a test beside this file.
"""
