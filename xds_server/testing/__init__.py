"""The gateway's own tests (`xds test`): read, run through a real Envoy with stub upstreams, compared and reported."""
