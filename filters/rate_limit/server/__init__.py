"""The service behind Envoy's rate limit filters (envoy.service.ratelimit.v3)."""
