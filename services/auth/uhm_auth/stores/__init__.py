"""The tables of the auth service: who reads and writes which."""

__all__: list[str] = []
