"""Envoy's configuration for limits: descriptors, and the limits that Envoy counts itself."""
