"""The composer: a service behind Envoy that answers one request by several calls to upstreams."""
