"""The HTTP server: one connection's limits, and the application behind it."""
