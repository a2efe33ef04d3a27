"""One request: from the id that came to the id that goes."""

__all__: list[str] = []
