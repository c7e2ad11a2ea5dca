"""Authentication: its methods, and the script in Envoy that identifies the consumer."""
