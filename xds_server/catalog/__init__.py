"""The catalogue as the portal shows it: entries, full-text search, and samples of calls. No code here does IO."""
