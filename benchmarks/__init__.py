"""The figures of docs/performance.md: one module for each subject, run by ``python -m benchmarks``."""
