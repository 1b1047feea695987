"""What we measure, and against whom: `python -m benchmarks [expressions] [transform] [http]`."""
