"""A small certificate authority: it issues certificates, and its own key rotates. It does no IO."""
