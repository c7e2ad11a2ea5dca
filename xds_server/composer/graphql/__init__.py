"""The engine of `graphql`: it answers operations by calls to upstreams."""
