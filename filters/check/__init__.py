"""The service behind Envoy's ext_authz filters: policies in Python, API keys, passwords and limits in one call."""
