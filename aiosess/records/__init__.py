"""One session: what is kept, what was changed, and the rules. Nothing here knows aiohttp."""

__all__: list[str] = []
