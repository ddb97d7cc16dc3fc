"""Published benchmarks as they lie on disk."""
