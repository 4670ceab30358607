"""The gRPC faces: one module per service."""

__all__: list[str] = []
