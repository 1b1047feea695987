"""Sources: polled splits and pushed requests become records, each in one transaction with where it came from."""
