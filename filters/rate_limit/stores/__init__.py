"""Where counters are: the process that owns them, or Redis."""
