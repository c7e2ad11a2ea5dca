"""Who calls: the ways to authenticate, and the script in Envoy that names the consumer."""
