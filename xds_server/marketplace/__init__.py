"""The API marketplace: who subscribes to which product, with which keys. It knows nothing of Envoy, HTTP or pages."""
