"""Storages that were made for aiohttp-session, in the place of one of ours."""

__all__: list[str] = []
