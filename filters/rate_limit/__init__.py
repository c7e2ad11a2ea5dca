"""Limits on requests, bytes and concurrency: decided exactly, reported truly, and safe when the counters are away."""
