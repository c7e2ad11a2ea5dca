"""Bodies without their content codings: the policy decompression, and the service that decodes for scripts in Envoy."""
