"""The sink runtime: reads, decodes, holds back, and commits what delivery settled."""
