"""Documents of APIs (OpenAPI, GraphQL, gRPC) as one frozen model. No code here does IO."""
