"""How the session id travels."""

__all__: list[str] = []
