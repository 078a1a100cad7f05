"""Benchmarks of jrnn, described in README.md. Run them from the root of the repository."""
