"""What Envoy gets for limits: descriptors, and the limits that it counts for itself."""
