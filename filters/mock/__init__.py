"""Mocks of upstreams: the policy server answers from the examples and schemas of an OpenAPI document."""
