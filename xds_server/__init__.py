"""The control plane: a folder of YAML becomes one snapshot of Envoy resources, and every Envoy is brought to it."""
