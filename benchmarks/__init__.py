"""Speed, measured side by side; what it printed is in docs/benchmarks.md."""
