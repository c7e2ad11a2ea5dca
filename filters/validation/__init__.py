"""Validation of requests and responses: headers and sizes by Envoy, JSON Schema and OpenAPI by the policy server."""
