"""Schemas of GraphQL whose fields are calls to REST services: read, checked, limited and planned without IO."""
