"""Stands in for aiohttp_session.nacl_storage: the data in the cookie, encrypted with NaCl."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from aiohttp_session import AbstractStorage, Session
from aiohttp_session.nacl_storage import NaClCookieStorage as _NaClCookieStorage
from nacl.encoding import Base64Encoder
from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from aiosess.compat.in_cookie import EncryptedRecords
from aiosess.compat.log import log

__all__ = ["AbstractStorage", "Base64Encoder", "NaClCookieStorage", "Session", "log"]


class NaClCookieStorage(EncryptedRecords, _NaClCookieStorage):
    """Keeps the data in the cookie, encrypted with *secret_key*, 32 bytes; several for rotation.

    The first encrypts and all decrypt; a cookie that an older one encrypted is encrypted anew on
    the next response that used its session.
    """

    # What is too short, or not base 64, is a ValueError of one kind or another.
    _refusals = (CryptoError, ValueError)

    def __init__(self, secret_key: bytes | Sequence[bytes], **options: Any) -> None:
        keys = [secret_key] if isinstance(secret_key, bytes | bytearray) else list(secret_key)
        if not keys:
            raise ValueError("secret_key is empty: give at least one key")
        self._decrypts = [partial(SecretBox(key).decrypt, encoder=Base64Encoder) for key in keys]
        super().__init__(keys[0], **options)
