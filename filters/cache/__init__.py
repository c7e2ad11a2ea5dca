"""cache: responses that Envoy keeps and serves again (RFC 9111)."""
