"""The REST side: bindings that answer requests."""
