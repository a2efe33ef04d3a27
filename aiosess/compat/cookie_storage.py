"""Stands in for aiohttp_session.cookie_storage: the data in the cookie, encrypted with Fernet."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, TypeAlias

from aiohttp import web
from aiohttp_session import AbstractStorage, Session
from aiohttp_session.cookie_storage import EncryptedCookieStorage as _EncryptedCookieStorage
from cryptography.fernet import Fernet, InvalidToken

from aiosess.compat.format import Records, warn_of_size
from aiosess.compat.log import log

__all__ = ["AbstractStorage", "EncryptedCookieStorage", "InvalidToken", "Session", "log"]

Key: TypeAlias = str | bytes | bytearray | Fernet


class EncryptedCookieStorage(Records, _EncryptedCookieStorage):
    """Keeps the data in the cookie, encrypted with *secret_key*; several are for rotation.

    The first encrypts and all decrypt; a cookie that an older one encrypted is encrypted anew on
    the next response that used its session. A key is a Fernet, 32 bytes, or those in base 64.
    """

    deletes_records = False

    def __init__(self, secret_key: Key | Sequence[Key], **options: Any) -> None:
        keys = [secret_key] if isinstance(secret_key, Key) else secret_key
        self._fernets = [_fernet(key) for key in keys]
        if not self._fernets:
            raise ValueError("secret_key is empty: give at least one key")
        super().__init__(self._fernets[0], **options)

    async def load_session(self, request: web.Request) -> Session:
        """Return the session in the cookie, or a new one."""
        cookie = self.load_cookie(request)
        if cookie is None:
            return await self.new_session()
        for fernet in self._fernets:
            try:
                plain = fernet.decrypt(cookie.encode())
            except InvalidToken:
                continue
            try:
                content = self._decoder(plain.decode())
            except ValueError:
                break
            session = await self.session_in(content, None)
            if fernet is not self._fernets[0] and not session.new:
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


def _fernet(key: Key) -> Fernet:
    if isinstance(key, Fernet):
        return key
    return Fernet(key if isinstance(key, str) else base64.urlsafe_b64encode(key))
