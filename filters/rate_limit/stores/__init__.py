"""The stores of counters that several processes share: the owner process, or Redis."""
