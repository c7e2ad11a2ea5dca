"""The figures of docs/explanation/performance.md: one module for each subject, run by ``python -m benchmarks``."""
