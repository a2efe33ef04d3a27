"""Connections to a back-end that all requests of a process share."""

__all__: list[str] = []
