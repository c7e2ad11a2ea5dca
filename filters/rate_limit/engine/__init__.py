"""The algorithms, and counters in memory. Does no IO and reads no clock."""
