"""A session that a storage of aiohttp-session keeps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeAlias

import aiohttp_session

from aiosess.errors import SessionError
from aiosess.interop.values import COPIES, SCALARS
from aiosess.records.merge import MISSING
from aiosess.records.state import Past, SessionState
from aiosess.records.typed import Reads, SessionKey
from aiosess.session import Session, SessionIO
from aiosess.timeouts import Duration

__all__ = ["BorrowedSession", "Loaded"]

Loaded: TypeAlias = Callable[[SessionState], aiohttp_session.Session]
"""Gives the storage's own object for a session."""


class BorrowedSession(Session):
    """A session that a storage of aiohttp-session keeps; see there for what keys it takes.

    Members that the storage's own class has beyond ``aiohttp_session.Session`` are passed on.
    """

    def __init__(self, state: SessionState, io: SessionIO, loaded: Loaded) -> None:
        super().__init__(state, io)
        self._loaded = loaded

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loaded(self._state), name)

    @property
    def id(self) -> str:
        """The session id; SessionError where the storage has not told any (yet)."""
        if self.identity is None:
            raise SessionError(
                "the session has no id: a storage of aiohttp-session makes one when it saves, and "
                "one that keeps the data in the cookie makes none"
            )
        return str(self.identity)

    @property
    def identity(self) -> Any:
        """What the storage knows the session by; ``None`` while it is new, or in the cookie."""
        return self._loaded(self._state).identity

    async def authenticated(self) -> None:
        """Raise SessionError: such a storage does not keep when somebody logged in."""
        raise SessionError(
            "a storage of aiohttp-session does not keep when somebody logged in: call "
            "new_session(request) or renew_id() at a login, or use a storage of aiosess"
        )

    def set_new_identity(self, identity: Any) -> None:
        """Choose the identity of a new session; RuntimeError when it is not new."""
        if not self.new:
            raise RuntimeError("Can't change identity for a session which is not new")
        self._loaded(self._state).set_new_identity(identity)

    @property
    def max_age(self) -> int | None:
        """How long cookie and record live from the last change on, in seconds."""
        age = self._state.cookie.max_age
        return None if age is None else int(age)

    @max_age.setter
    def max_age(self, value: Duration | None) -> None:
        # Whatever aiohttp_session takes, zero too.
        age = value.total_seconds() if isinstance(value, timedelta) else value
        own = self._state.cookie.own
        own.pop("max_age", None)
        if age != self._state.cookie.base.max_age:
            own["max_age"] = age

    def changed(self) -> None:
        """Have the session written even though nothing seems to have changed."""
        super().changed()
        self._changed = True

    def __getitem__(self, key: str | Reads[Any]) -> Any:
        if isinstance(key, Reads):
            return super().__getitem__(key)
        value = self._mapping[key]
        return value if type(value) in SCALARS else self._watched(key, value)

    def _watch(self, key: str, value: Any) -> None:
        if self._state.past is Past.CONCLUDED:
            self._io.note_late()
        if key not in self._state.originals:
            self._state.originals[key] = COPIES.freeze(value)

    def __setitem__(self, key: str | SessionKey[Any], value: Any) -> None:
        if isinstance(key, SessionKey):
            super().__setitem__(key, value)
            return
        self._look_back()
        self._remember(key)
        self._mapping[key] = value
        self.changed()

    def __delitem__(self, key: str | SessionKey[Any]) -> None:
        self._look_back()
        self._remember(key.name if isinstance(key, SessionKey) else key)
        super().__delitem__(key)
        self.changed()

    def _remember(self, key: str) -> None:
        self._state.originals.setdefault(key, self._mapping.get(key, MISSING))
