"""The usage server: takes an entry for each request from Envoys, and counts requests by hour in a database."""
