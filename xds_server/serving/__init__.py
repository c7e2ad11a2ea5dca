"""The gRPC edge of the xDS protocol: the store of snapshots, the streams, and what can be seen of them."""
