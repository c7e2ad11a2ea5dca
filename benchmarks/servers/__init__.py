"""Servers that a benchmark starts in their own processes."""
