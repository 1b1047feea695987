"""The tools that make things fail. Each counts what it really did, so that a report can prove it."""
