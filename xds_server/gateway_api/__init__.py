"""The Kubernetes Gateway API as a way to write a gateway: objects become files of the gateway language. It does no IO."""
