"""The gRPC side: calls passed on without decoding."""
