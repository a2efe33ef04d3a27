"""What the storages of aiohttp-session in the cookie have in common: all data travel in it."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import ClassVar, Final, NamedTuple

from aiohttp import web
from aiohttp_session import Session
from aiohttp_session import SimpleCookieStorage as _SimpleCookieStorage

from aiosess.compat.format import Records
from aiosess.events import Events, Reason
from aiosess.privacy import private

__all__ = ["CookieRecords", "EncryptedRecords", "Opened", "SimpleCookieStorage"]

# RFC 6265, section 6.1: what a browser keeps of one cookie at the least, and in fact at the most.
_LARGEST_COOKIE: Final = 4096


@private("is_outdated")
class Opened(NamedTuple):
    """What a cookie holds, and whether an older key encrypted it."""

    content: object
    is_outdated: bool


class CookieRecords(Records):
    """Keeps a record in the cookie itself.

    A cookie that browsers will drop for its size is an ERROR in the log. One that an older key
    encrypted is written anew on the next response that used its session.
    """

    deletes_records = False

    _fault: ClassVar[Reason]
    """What is told of a cookie that cannot be opened."""

    async def load_session(self, request: web.Request) -> Session:
        """Return the session in the cookie; a new one where there is none that can be opened."""
        cookie = self.load_cookie(request)
        if cookie is None:
            return await self.new_session()
        opened = self._open(cookie)
        if opened is None:
            Events().tell(self._fault)
            return await self.new_session()
        session = await self.session_in(opened.content, None)
        if opened.is_outdated and not session.new:
            session.changed()
        return session

    def save_cookie(
        self, response: web.StreamResponse, cookie_data: str, *, max_age: int | None = None
    ) -> None:
        """Set the cookie, or clear it where there are no data."""
        super().save_cookie(response, cookie_data, max_age=max_age)
        morsel = response.cookies[self.cookie_name]
        size = len(self.cookie_name) + len(morsel.coded_value)
        if size > _LARGEST_COOKIE:
            Events().tell(Reason.COOKIE_TOO_LARGE, size=size, most=_LARGEST_COOKIE)

    @abc.abstractmethod
    def _open(self, cookie: str) -> Opened | None: ...


class SimpleCookieStorage(CookieRecords, _SimpleCookieStorage):
    """Keeps the data as plain JSON in the cookie, for tests: anybody can read and write it.

    A cookie that is not such JSON counts as none.
    """

    _fault = Reason.COOKIE_NOT_JSON

    def _open(self, cookie: str) -> Opened | None:
        try:
            return Opened(self._decoder(cookie), is_outdated=False)
        except (ValueError, RecursionError):
            return None


class EncryptedRecords(CookieRecords):
    """Keeps a record in the cookie, encrypted by the first of several keys; all decrypt."""

    _fault = Reason.COOKIE_UNDECIPHERED

    _decrypts: Sequence[Callable[[bytes], bytes]]
    """A function for each key."""

    _refusals: ClassVar[tuple[type[Exception], ...]]
    """What such a function raises where another key encrypted the cookie, or none did."""

    def _open(self, cookie: str) -> Opened | None:
        for number, decrypt in enumerate(self._decrypts):
            try:
                plain = decrypt(cookie.encode())
            except self._refusals:
                continue
            try:
                return Opened(self._decoder(plain.decode()), is_outdated=number > 0)
            except (ValueError, RecursionError):
                return None
        return None
