"""Translation of a gateway to the Envoy resources that serve it. Pure and deterministic."""
