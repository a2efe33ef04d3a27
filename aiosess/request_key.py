"""The key under which a request keeps what is ours, by aiohttp's own class for that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

__all__ = ["RequestKey"]

if TYPE_CHECKING:
    from aiohttp.web import RequestKey
else:
    # Before 3.14 it has such keys for applications only; its requests take any object for one.
    RequestKey = getattr(web, "RequestKey", web.AppKey)
