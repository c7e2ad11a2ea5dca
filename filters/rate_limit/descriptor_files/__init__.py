"""Files in the format of envoyproxy/ratelimit, for Envoys with a configuration of their own."""
