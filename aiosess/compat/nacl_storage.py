"""Stands in for aiohttp_session.nacl_storage: the data in the cookie, encrypted with NaCl."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web
from aiohttp_session import AbstractStorage, Session
from aiohttp_session.nacl_storage import NaClCookieStorage as _NaClCookieStorage
from nacl.encoding import Base64Encoder
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from aiosess.compat.format import Records, warn_of_size
from aiosess.compat.log import log

__all__ = ["AbstractStorage", "Base64Encoder", "NaClCookieStorage", "Session", "log"]


class NaClCookieStorage(Records, _NaClCookieStorage):
    """Keeps the data in the cookie, encrypted with *secret_key*, 32 bytes; several for rotation.

    The first encrypts and all decrypt; a cookie that an older one encrypted is encrypted anew on
    the next response that used its session.
    """

    deletes_records = False

    def __init__(self, secret_key: bytes | Sequence[bytes], **options: Any) -> None:
        keys = [secret_key] if isinstance(secret_key, bytes | bytearray) else list(secret_key)
        if not keys:
            raise ValueError("secret_key is empty: give at least one key")
        self._boxes = [SecretBox(key) for key in keys]
        super().__init__(keys[0], **options)

    async def load_session(self, request: web.Request) -> Session:
        """Return the session in the cookie, or a new one."""
        cookie = self.load_cookie(request)
        if cookie is None:
            return await self.new_session()
        for box in self._boxes:
            try:
                plain = box.decrypt(cookie.encode(), encoder=Base64Encoder)
            except (CryptoError, ValueError):
                # What is too short, or not base 64, is a ValueError of one kind or another.
                continue
            try:
                content = self._decoder(plain.decode())
            except ValueError:
                break
            session = await self.session_in(content, None)
            if box is not self._boxes[0] and not session.new:
                session.changed()
            return session
        log.warning("a session cookie cannot be decrypted: there is no session then")
        return await self.new_session()

    async def save_session(
        self, request: web.Request, response: web.StreamResponse, session: Session
    ) -> None:
        """Put the session into the cookie, or clear it where the session is empty."""
        await super().save_session(request, response, session)
        warn_of_size(response, self.cookie_name)
