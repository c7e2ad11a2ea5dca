"""A gRPC server for unary methods over HTTP/2, on asyncio: the path of every policy decision."""
