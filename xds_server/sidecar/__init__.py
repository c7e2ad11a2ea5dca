"""Sidecars: what a pod of the mesh gets beside its application, and how its connections get there. It does no IO."""
