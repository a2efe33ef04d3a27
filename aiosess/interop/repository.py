"""Sessions in a storage made for aiohttp-session, in the place of one of ours.

Such a storage reads and writes cookie and record in one go, by ``load_session`` and
``save_session``, and finds a session by the browser's cookie only. So there is a repository for
each request. What cannot be had is said once, when the storage is taken into service.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import aiohttp_session
from aiohttp import web

from aiosess.attributes import CookieOptions, SessionCookie
from aiosess.errors import SessionError, SessionGone
from aiosess.interop.storage import BorrowedStorage
from aiosess.interop.values import COPIES
from aiosess.records.conflicts import gone
from aiosess.records.decide import Ending, ending
from aiosess.records.repository import NewId
from aiosess.records.state import Seen, SessionState

__all__ = ["BorrowedRepository"]

T = TypeVar("T")


class _Kept:
    """The version of a session that is kept: it holds the storage's own object for it."""

    def __init__(self, session: aiohttp_session.Session) -> None:
        self.session = session


class BorrowedRepository:
    """Keeps the session of *request* in *storage*."""

    def __init__(
        self,
        storage: BorrowedStorage,
        request: web.Request,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.now = clock
        self.bonds: None = None
        self._storage = storage
        # Such a storage cannot do without it, also after the response.
        self._request = request
        # The storage's own object for a session that is not kept yet.
        self._unkept = aiohttp_session.Session(None, data=None, new=True)
        # The browser's cookie does not lead to what was saved.
        self._is_elsewhere = False
        self.written: web.StreamResponse | None = None
        """A response that nobody made, in which the storage wrote what is to be sent."""

    def loaded(self, state: SessionState) -> aiohttp_session.Session:
        """Return the storage's own object for *state*."""
        return state.version.session if isinstance(state.version, _Kept) else self._unkept

    async def load(
        self,
        _session_id: str,
        cookie: CookieOptions,
        /,
        *,
        is_passive: bool = False,  # noqa: ARG002 - here nothing lives longer by being read
    ) -> SessionState | None:
        """Return the session to which the request's cookie leads, or a new one."""
        return self._state_of(await self._storage.load(self._request), cookie)

    def fresh(self, _session_id: str, cookie: CookieOptions, /) -> SessionState:
        """Return a session that is not kept yet."""
        age = self._storage.given.max_age
        return self._state_of(
            aiohttp_session.Session(None, data=None, new=True, max_age=age), cookie
        )

    def expires_at(self, _state: SessionState, /) -> None:
        """Return ``None``: such a storage tells nobody."""

    async def move(self, state: SessionState, _new_id: NewId) -> None:
        """Let *state* go on as another session of the storage; nothing is written yet."""
        state.move_to("")
        self._unkept = await self._storage.new()

    def can_renew(self, state: SessionState) -> bool:
        """Ask whether there is an identity that somebody may know."""
        return not state.is_new and not self._storage.is_kept_in_cookie()

    def ending(self, state: SessionState, *, is_resigned: bool, is_saved: bool) -> Ending:
        """Return how *state* was left."""
        # Members of the storage's own class mark its object as changed.
        state.must_be_written = state.must_be_written or _read(self.loaded(state), "changed")
        return ending(state, is_touch_due=False, is_resigned=is_resigned, is_saved=is_saved)

    async def create(self, state: SessionState) -> None:
        """Keep *state* for the first time, and end the session that was there before."""
        await self._save(state)
        before, state.previous = state.previous, None
        if before is not None:
            await self._emptied(self.loaded(before))

    def tell(self, _session_id: str) -> None:
        """Do nothing: nobody watches a session of such a storage."""

    async def replace(self, state: SessionState) -> bool:
        """Write *state*; of two requests that write at once, the later one wins."""
        await self._save(state)
        return True

    async def touch(
        self,
        state: SessionState,
        *,
        is_renewal_told: bool = True,  # noqa: ARG002 - no old id leads anywhere here
    ) -> bool:
        """Write all of *state* again: nothing less extends its life."""
        if state.data:
            await self._save(state)
        return True

    async def renew(self, state: SessionState, _previous: SessionState) -> bool:
        """Keep *state* under its new identity, and end what is under the old one."""
        await self.create(state)
        return True

    async def rotate(self, state: SessionState, _previous: SessionState) -> bool:
        """Keep *state* under its new identity, and end what is under the old one."""
        await self.create(state)
        return True

    async def delete(self, state: SessionState) -> None:
        """End the session, and the one that was there before."""
        for each in (state.previous, state):
            if each is not None and each.version is not None:
                self.written = await self._emptied(self.loaded(each))
        state.deleted()
        self._unkept = await self._storage.new()

    async def reload(self, state: SessionState, seen: Seen) -> None:
        """Read the session again into *state*; SessionGone when there is none any more.

        What was changed since *seen* is kept, whatever another request wrote there. Raise
        SessionError where this request has made another session.
        """
        if self._is_elsewhere:
            raise SessionError(
                f"{self._storage.name} finds a session by the browser's cookie only, and this "
                "request has made another: reload() works from the next request on"
            )
        if (state.previous or state).is_new:
            raise SessionGone("the session is new: there is no record to read yet")
        loaded = await self._storage.load(self._request)
        if loaded.new:
            raise gone(state)
        newest = self._state_of(loaded, state.cookie.base)
        kept = {key: value for key, (_, value) in state.changed_since(seen).items()}
        state.replaced_by(newest, kept)
        _write(loaded, mapping=state.data)

    async def atomic(self, _state: SessionState, _change: Callable[[SessionState], T], /) -> T:
        """Raise SessionError."""
        raise SessionError(
            f"session.atomic() needs a storage that compares and sets, which {self._storage.name} "
            "does not: use one of aiosess.storages"
        )

    def _state_of(self, loaded: aiohttp_session.Session, cookie: CookieOptions) -> SessionState:
        if loaded.new:
            self._unkept = loaded
        own = {} if loaded.max_age == cookie.max_age else {"max_age": loaded.max_age}
        return SessionState(
            "",
            SessionCookie(cookie, own),
            getattr(loaded, "began_at", loaded.created),
            # One mapping, also for what the storage's own class does with it.
            data=_read(loaded, "mapping"),
            version=None if loaded.new else _Kept(loaded),
            original_own=dict(own),
            values=COPIES,
        )

    async def _save(self, state: SessionState) -> None:
        odd = state.cookie.own.keys() - {"max_age"}
        if odd:
            raise SessionError(
                f"session.cookie.{min(odd)} cannot be set with {self._storage.name}: "
                "it has max_age only"
            )
        loaded, age, snapshot = self.loaded(state), state.cookie.max_age, state.snapshot()
        _write(
            loaded,
            mapping=state.data,
            max_age=None if age is None else int(age),
            # The storage counts max_age from here.
            created=int(self.now()),
            changed=True,
        )
        self.written = await self._storage.save(self._request, loaded)
        _write(loaded, changed=False)
        self._is_elsewhere = self._is_elsewhere or loaded.new or self._storage.is_kept_in_cookie()
        if loaded.new:
            self._learn_identity(loaded, self.written)
        state.saved(_Kept(loaded), snapshot)

    def _learn_identity(self, loaded: aiohttp_session.Session, sent: web.StreamResponse) -> None:
        """Take the identity that the storage put into the cookie, for what is saved next."""
        morsel = sent.cookies.get(self._storage.given.cookie_name)
        _write(loaded, new=False)
        if loaded.identity is None and morsel and not self._storage.is_kept_in_cookie():
            _write(loaded, identity=morsel.value)

    async def _emptied(self, loaded: aiohttp_session.Session) -> web.StreamResponse:
        """Keep *loaded* without data: this is how a storage of aiohttp-session ends a session."""
        _write(loaded, mapping={}, changed=True)
        return await self._storage.save(self._request, loaded)


def _read(loaded: aiohttp_session.Session, name: str) -> Any:
    """Return what aiohttp_session's own middleware and storages read."""
    return getattr(loaded, f"_{name}")


def _write(loaded: aiohttp_session.Session, **members: object) -> None:
    """Write what aiohttp_session itself writes, and has no setters for."""
    for name, value in members.items():
        setattr(loaded, f"_{name}", value)
