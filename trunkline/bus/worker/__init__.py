"""A worker: one process, its pipelines, and what people ask of them."""
