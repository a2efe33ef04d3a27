"""What the storages of aiohttp-session on a server have in common: a key in the cookie."""

from __future__ import annotations

import abc
from collections.abc import Callable

from aiohttp import web
from aiohttp_session import Session

from aiosess.compat.format import Records

__all__ = ["KeyedRecords"]


class KeyedRecords(Records):
    """Keeps a record under ``<name of the cookie>_<key>``, and the key in the cookie."""

    _key_factory: Callable[[], str]

    async def load_session(self, request: web.Request) -> Session:
        """Return the session under the key in the cookie, or a new one."""
        key = self.load_cookie(request)
        kept = None if key is None else await self._get(self._full(key))
        if kept is None:
            return await self.new_session()
        try:
            content = self._decoder(kept if isinstance(kept, str) else kept.decode())
        except ValueError:
            # As in aiohttp-session: what cannot be read is overwritten.
            return Session(key, data=None, new=False, max_age=self.max_age)
        return await self.session_in(content, key)

    async def save_session(
        self,
        request: web.Request,  # noqa: ARG002 - belongs to the contract
        response: web.StreamResponse,
        session: Session,
    ) -> None:
        """Keep the session and send its key; delete the record of one that is empty."""
        if session.empty or (session.max_age is not None and session.max_age <= 0):
            if session.identity is not None:
                await self._delete(self._full(str(session.identity)))
            self.save_cookie(response, "", max_age=session.max_age)
            return
        key = self._key_factory() if session.identity is None else str(session.identity)
        await self._set(
            self._full(key), self._encoder(self._get_session_data(session)), session.max_age
        )
        self.save_cookie(response, key, max_age=session.max_age)

    def _full(self, key: str) -> str:
        return f"{self.cookie_name}_{key}"

    @abc.abstractmethod
    async def _get(self, key: str) -> str | bytes | None: ...

    @abc.abstractmethod
    async def _set(self, key: str, value: str, max_age: int | None) -> None: ...

    @abc.abstractmethod
    async def _delete(self, key: str) -> None: ...
