"""Benchmarks, each beside a peer or a bare baseline in the same run. Results are kept in RESULTS.md."""
