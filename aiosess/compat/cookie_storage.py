"""Stands in for aiohttp_session.cookie_storage: the data in the cookie, encrypted with Fernet."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any, TypeAlias

from aiohttp_session import AbstractStorage, Session
from aiohttp_session.cookie_storage import EncryptedCookieStorage as _EncryptedCookieStorage
from cryptography.fernet import Fernet, InvalidToken

from aiosess.compat.in_cookie import EncryptedRecords
from aiosess.compat.log import log

__all__ = ["AbstractStorage", "EncryptedCookieStorage", "InvalidToken", "Session", "log"]

Key: TypeAlias = str | bytes | bytearray | Fernet


class EncryptedCookieStorage(EncryptedRecords, _EncryptedCookieStorage):
    """Keeps the data in the cookie, encrypted with *secret_key*; several are for rotation.

    The first encrypts and all decrypt; a cookie that an older one encrypted is encrypted anew on
    the next response that used its session. A key is a Fernet, 32 bytes, or those in base 64.
    """

    _refusals = (InvalidToken,)

    def __init__(self, secret_key: Key | Sequence[Key], **options: Any) -> None:
        keys = [secret_key] if isinstance(secret_key, Key) else secret_key
        fernets = [_fernet(key) for key in keys]
        if not fernets:
            raise ValueError("secret_key is empty: give at least one key")
        self._decrypts = [fernet.decrypt for fernet in fernets]
        super().__init__(fernets[0], **options)


def _fernet(key: Key) -> Fernet:
    if isinstance(key, Fernet):
        return key
    return Fernet(key if isinstance(key, str) else base64.urlsafe_b64encode(key))
