"""The measurements behind docs/explanation/performance.md: one module per subject, run by ``python -m benchmarks``."""
