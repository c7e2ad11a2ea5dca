"""grpc_transcoding: REST clients call gRPC methods, by the rules of google.api.http."""
