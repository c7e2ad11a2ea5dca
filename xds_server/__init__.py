"""The control plane: it translates a folder of YAML into a snapshot of Envoy resources, and serves it to every Envoy."""
