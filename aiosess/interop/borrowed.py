"""A storage made for aiohttp-session, in the place of one of ours.

Such a storage reads and writes cookie and record in one go, by ``load_session`` and
``save_session``, and finds a session by the browser's cookie only. What can be had on top of that
is here: retries, streamed responses, nested changes noticed, a record that is emptied when its
session ends. What cannot is said once, when the storage is taken into service.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import re
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final, TypeVar, cast

import aiohttp_session
from aiohttp import hdrs, web

from aiosess.attributes import CookieOptions, SessionCookie
from aiosess.errors import (
    OptionsError,
    SessionError,
    SessionGone,
    SessionNotSent,
    StorageUnavailable,
)
from aiosess.exchange.keys import Bridge, hand_out
from aiosess.options import SessionOptions
from aiosess.records.decide import Action, Rules, decide, ending, is_login
from aiosess.records.merge import MISSING, Changes, Original
from aiosess.records.state import Intent, SessionState
from aiosess.session import SESSION, Session
from aiosess.storages import Version
from aiosess.storages.guard import Retries, RetryPolicy
from aiosess.timeouts import Duration
from aiosess.transports.cookie import keep_out_of_caches, vary_by_cookie

__all__ = ["ForeignSession", "ForeignState", "ForeignStorage", "ForeignVisit"]

T = TypeVar("T")

_log: Final = logging.getLogger("aiosess")

# What clients of databases call an error that means "no answer"; few derive it from OSError.
_NO_ANSWER: Final = re.compile("connect|time(d)?_?out|unavailable|OperationalError", re.IGNORECASE)
_REFUSED: Final = re.compile("auth(entic|oriz)", re.IGNORECASE)

_SCALARS: Final = frozenset({str, bytes, int, float, bool, type(None)})


class ForeignStorage:
    """Asks *given*, a storage made for aiohttp-session, and asks again as *policy* says.

    An error means "no answer", and is asked again, when it is an OSError, or when its class or a
    base of it is called after a connection or a timeout. A ValueError about the cookie that the
    browser sent means that there is no session.
    """

    def __init__(self, given: aiohttp_session.AbstractStorage, policy: RetryPolicy) -> None:
        self.given = given
        self.name: str = type(given).__name__
        self.cookie: CookieOptions = _cookie_options(given)
        self._retries = Retries(policy)
        self._has_warned = False
        self._kept_in_cookie = any(
            each.__name__ in {"SimpleCookieStorage", "EncryptedCookieStorage", "NaClCookieStorage"}
            for each in type(given).__mro__
        )
        _log.warning("%s", self._limits())

    async def load(self, request: web.Request) -> aiohttp_session.Session:
        """Return the session that the cookie in *request* leads to, or a new one."""
        session = await self._retries.call(self._load, request)
        if not session.new and session.identity is None:
            self._kept_in_cookie = True
        return session

    async def save(
        self, request: web.Request, session: aiohttp_session.Session
    ) -> web.StreamResponse:
        """Keep *session*, or end it where it is empty; return a response with what is to be sent.

        It is not the response that the handler made: that one may have left, or never leave.
        """
        return await self._retries.call(self._save, request, session)

    async def new(self) -> aiohttp_session.Session:
        """Return a session that is not kept yet."""
        return await self.given.new_session()

    def is_kept_in_cookie(self) -> bool:
        """Ask whether the data travel in the cookie, as far as is known."""
        return self._kept_in_cookie

    async def _load(self, request: web.Request) -> aiohttp_session.Session:
        try:
            session = await self._answer(self.given.load_session(request))
        except ValueError as error:
            if self.given.load_cookie(request) is None:
                raise
            if not self._has_warned:
                self._has_warned = True
                _log.warning(
                    "a cookie or record cannot be read (%s: %s): there is no session then",
                    self.name,
                    type(error).__name__,
                )
            return await self.new()
        if not isinstance(session, aiohttp_session.Session):
            raise TypeError(f"{self.name}.load_session() returned {session!r}, not a session")
        return session

    async def _save(
        self, request: web.Request, session: aiohttp_session.Session
    ) -> web.StreamResponse:
        response = web.StreamResponse()
        await self._answer(self.given.save_session(request, response, session))
        return response

    async def _answer(self, call: Any) -> Any:
        try:
            return await call
        except Exception as error:
            if _means_no_answer(error):
                raise StorageUnavailable(
                    f"{self.name} did not answer: {type(error).__name__}"
                ) from error
            raise

    def _limits(self) -> str:
        limits = [
            "of two requests that change one session at once, only the later one keeps its change",
            "reading a session does not extend its life",
            "session.atomic() raises SessionError",
        ]
        if self._kept_in_cookie:
            limits.append("a copy of the cookie outlives session.destroy() and renew_id()")
        else:
            limits.append("session.renew_id() leaves the old id no time of grace")
        if not self._kept_in_cookie and not getattr(self.given, "deletes_records", False):
            limits.append("session.destroy() leaves an empty record behind")
        return f"{self.name} is a storage of aiohttp-session: {'; '.join(limits)}"


class ForeignState(SessionState, kw_only=True):
    """What is known of a session; *loaded* is the storage's own object for it.

    Its values need not be JSON: the storage's encoder knows what it takes.
    """

    loaded: aiohttp_session.Session

    @property
    def is_modified(self) -> bool:
        """Ask whether there is something to write."""
        return (
            self.is_marked
            or _read(self.loaded, "changed")
            or self.cookie.own != self.original_own
            or bool(self.changes())
        )

    def changes(self) -> Changes:
        """Return what was changed since it was read, by top-level key."""
        changes: Changes = {}
        for key, original in self.originals.items():
            value = self.data.get(key, MISSING)
            if not _is_same(original, value):
                changes[key] = (original, value)
        return changes

    def saved(self, version: Version) -> None:
        """Take note that all of it was written."""
        kept: SessionState = self
        kept.version = version
        kept.is_marked = False
        kept.original_own = dict(self.cookie.own)
        kept.originals = {
            key: _copied(self.data[key])
            for key in self.originals
            if type(self.data.get(key)) not in _SCALARS
        }

    def leave_for(self, session_id: str) -> None:
        """Go on under another id; what is kept under this one becomes ``previous``."""
        kept: SessionState = self
        if self.version is not None:
            copies = {key: _copied(value) for key, value in self.data.items()}
            kept.previous = self.copied(
                cookie=SessionCookie(self.cookie.base, dict(self.cookie.own)),
                data=dict(self.data),
                originals={**copies, **self.originals},
            )
        kept.session_id = session_id
        kept.version = None

    def rollback(self) -> None:
        """Forget what this request did."""
        kept: SessionState = self
        before = cast("ForeignState | None", self.previous)
        if before is not None:
            self.loaded, kept.version = before.loaded, before.version
            kept.created_at, kept.originals = before.created_at, before.originals
            kept.original_own = before.original_own
            self.data.clear()
            self.data.update(before.data)
            kept.previous = None
        for key, original in self.originals.items():
            if original is MISSING:
                self.data.pop(key, None)
            else:
                self.data[key] = original
        kept.originals = {}
        self.cookie.own.clear()
        self.cookie.own.update(self.original_own)
        kept.is_marked = False
        kept.intent = Intent.KEEP


class ForeignSession(Session):
    """A session that a storage of aiohttp-session keeps; see there for what keys it takes.

    Members that the storage's own class has beyond ``aiohttp_session.Session`` are passed on.
    """

    _state: ForeignState

    def __init__(self, state: ForeignState, io: ForeignVisit) -> None:
        super().__init__(state, io)
        self._state = state

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._state.loaded, name)

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
        return self._state.loaded.identity

    def set_new_identity(self, identity: Any) -> None:
        """Choose the identity of a new session; RuntimeError when it is not new."""
        if not self.new:
            raise RuntimeError("Can't change identity for a session which is not new")
        self._state.loaded.set_new_identity(identity)

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

    def __getitem__(self, key: str) -> Any:
        value = self._mapping[key]
        if type(value) not in _SCALARS and key not in self._state.originals:
            self._state.originals[key] = _copied(value)
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        self._check_alive()
        self._remember(key)
        self._mapping[key] = value
        self.changed()

    def __delitem__(self, key: str) -> None:
        self._check_alive()
        self._remember(key)
        self._mapping.pop(key)
        self.changed()

    def _remember(self, key: str) -> None:
        self._state.originals.setdefault(key, self._mapping.get(key, MISSING))


class ForeignVisit(Bridge[ForeignState]):
    """One request's session in such a storage: what Visit is for ours."""

    request: web.Request
    sent_on: web.StreamResponse | None = None
    _session: Session | None = None
    _state: ForeignState | None = None
    _lock: asyncio.Lock | None = None
    _due: web.StreamResponse | None = None
    _is_opened = False
    _is_settled = False
    _is_abandoned = False
    # The browser's cookie does not lead to what was saved.
    _is_elsewhere = False

    def __init__(
        self,
        storage: ForeignStorage,
        options: SessionOptions,
        request: web.Request,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._storage = storage
        self._options = options
        self.request = request
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        # An application may ask its storage, which it finds in the request, for more.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._storage.given, name)

    # Open.

    async def open(self, request: web.Request) -> Session | None:
        """Return the session, loading it the first time; ``None`` where there can be none."""
        self.is_asked = True
        if not self._is_opened:
            self._lock = self._lock or asyncio.Lock()
            async with self._lock:
                if not self._is_opened:
                    await self._open(request)
                    self._is_opened = True
        return self._session

    async def _open(self, request: web.Request) -> None:
        try:
            loaded = await self._storage.load(request)
        except StorageUnavailable as error:
            self._without_storage(error)
            return
        self.request = request
        self._state = self._state_of(loaded)
        self._session = self.session_of(self._state)
        hand_out(request, self._session)

    def session_of(self, state: ForeignState) -> Session:
        """Return what handlers hold of *state*."""
        return ForeignSession(state, self)

    def _state_of(self, loaded: aiohttp_session.Session) -> ForeignState:
        cookie = SessionCookie(self._storage.cookie)
        state = ForeignState(
            "",
            cookie,
            getattr(loaded, "began_at", loaded.created),
            # One mapping, also for what the storage's own class does with it.
            data=_read(loaded, "mapping"),
            version=None if loaded.new else True,
            loaded=loaded,
        )
        if loaded.max_age != cookie.base.max_age:
            cookie.own["max_age"] = loaded.max_age
        state.original_own = dict(cookie.own)
        return state

    # Commit.

    def leave(self) -> None:
        """Keep the request: such a storage cannot do without it, also after the response."""

    async def commit(self, response: web.StreamResponse) -> None:
        """Keep what the handler did, then write the cookie into *response*."""
        if response.prepared or (self.sent_on is not None and self.sent_on.prepared):
            await self._commit_late()
            return
        if not self._is_abandoned:
            try:
                await self._settle()
            except StorageUnavailable as error:
                self._without_storage(error)
        self._finish(response)

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Do the same for a response whose headers are about to leave."""
        self.request = request
        if not self._is_settled:
            try:
                await self._settle()
            except StorageUnavailable as error:
                self._without_storage(error)
                # The browser may not learn its id: there is nothing to keep later.
                self._is_abandoned = True
        if self.sent_on is not response:
            self._finish(response, is_leaving=True)
        else:
            vary_by_cookie(response)

    def abandon(self) -> None:
        """Keep nothing more: the handler failed, or the response that it prepared."""
        self._is_settled = self._is_abandoned = True

    async def _commit_late(self) -> None:
        """Keep what a stream or WebSocket did after its headers had left."""
        if self._is_abandoned:
            return
        try:
            await self._settle(is_late=True)
        except StorageUnavailable as error:
            if self._options.retries is not None:
                # It is too late for an answer with status 500.
                raise
            self._without_storage(error)

    async def _settle(self, *, is_late: bool = False) -> None:
        self._is_settled = True
        state = self._state
        if state is None:
            return
        if self.request.get(SESSION) is not self._session:
            if self._options.unset == "keep":
                return
            state.intent = Intent.DESTROY
        await self._act(state, self._options.rules, is_late=is_late)

    async def _act(self, state: ForeignState, rules: Rules, *, is_late: bool) -> None:
        if not is_late and is_login(state, self._options.renew_on):
            await self.change_id(Intent.RENEW)
        action = decide(ending(state, is_touch_due=False, is_resigned=False), rules)
        if not state.data and action is not Action.NOTHING:
            # An empty record counts as none.
            is_stored = state.version is not None or state.previous is not None
            action = Action.DELETE if is_stored else Action.NOTHING
        if is_late and action is not Action.NOTHING:
            self._check_can_be_late(state, action)
        match action:
            case Action.NOTHING:
                pass
            case Action.CREATE | Action.RENEW:
                await self._create(state)
            case Action.REPLACE | Action.TOUCH:
                await self._save(state)
            case Action.DELETE:
                await self._delete(state)

    async def _create(self, state: ForeignState) -> None:
        await self._save(state)
        before = cast("ForeignState | None", state.previous)
        state.previous, state.intent = None, Intent.KEEP
        if before is not None:
            await self._emptied(before.loaded)

    async def _save(self, state: ForeignState) -> None:
        odd = state.cookie.own.keys() - {"max_age"}
        if odd:
            raise SessionError(
                f"session.cookie.{min(odd)} cannot be set with {self._storage.name}: "
                "it has max_age only"
            )
        loaded, age = state.loaded, state.cookie.max_age
        _write(
            loaded,
            mapping=state.data,
            max_age=None if age is None else int(age),
            # The storage counts max_age from here.
            created=int(self._clock()),
            changed=True,
        )
        self._due = await self._storage.save(self.request, loaded)
        _write(loaded, changed=False)
        self._is_elsewhere = self._is_elsewhere or loaded.new or self._storage.is_kept_in_cookie()
        if loaded.new:
            self._learn_identity(loaded, self._due)
        state.saved(version=True)

    def _learn_identity(self, loaded: aiohttp_session.Session, sent: web.StreamResponse) -> None:
        """Take the identity that the storage put into the cookie, for what is saved next."""
        morsel = sent.cookies.get(self._storage.given.cookie_name)
        _write(loaded, new=False)
        if loaded.identity is None and morsel and not self._storage.is_kept_in_cookie():
            _write(loaded, identity=morsel.value)

    async def _delete(self, state: ForeignState) -> None:
        before = cast("ForeignState | None", state.previous)
        for each in (before, state):
            if each is not None and each.version is not None:
                self._due = await self._emptied(each.loaded)
        state.version = state.previous = None
        state.loaded = await self._storage.new()
        state.original_own = dict(state.cookie.own)
        state.originals = {}
        state.is_marked = False
        if state.intent is not Intent.DESTROY:
            state.intent = Intent.KEEP

    async def _emptied(self, loaded: aiohttp_session.Session) -> web.StreamResponse:
        """Keep *loaded* without data: this is how a storage of aiohttp-session ends a session."""
        _write(loaded, mapping={}, changed=True)
        return await self._storage.save(self.request, loaded)

    def _check_can_be_late(self, state: ForeignState, action: Action) -> None:
        is_known = action in {Action.REPLACE, Action.TOUCH, Action.DELETE}
        if is_known and state.previous is None and not self._storage.is_kept_in_cookie():
            return
        raise SessionNotSent(
            "the session changed when the headers had left, so that its cookie cannot be sent: "
            "await session.save() before prepare(), and install sessions with setup()"
        )

    def _without_storage(self, error: StorageUnavailable) -> None:
        if self._options.retries is None:
            _log.warning("the request goes on without its session: %s", error)
            return
        _log.error("the request is refused without its session: %s", error)
        raise web.HTTPInternalServerError(text="The session storage does not answer.") from error

    def _finish(self, response: web.StreamResponse, *, is_leaving: bool = False) -> None:
        """Write what is due into the headers."""
        self.sent_on = response
        if self.is_asked:
            vary_by_cookie(response)
        due = self._due
        if due is None:
            return
        for name, morsel in due.cookies.items():
            if is_leaving:
                # By now, aiohttp has put response.cookies into the headers.
                response.headers.add(hdrs.SET_COOKIE, morsel.OutputString())
            else:
                response.cookies[name] = morsel
        response.headers.extend(due.headers)
        keep_out_of_caches(response)

    # What the session can have done at once.

    async def save(self) -> bool:
        """Write what was changed."""
        await self._act(
            self._opened(), Rules(save_uninitialized=True), is_late=self.sent_on is not None
        )
        return True

    async def reload(self) -> None:
        """Read the record again."""
        state = self._opened()
        if self._is_elsewhere:
            raise SessionError(
                f"{self._storage.name} finds a session by the browser's cookie only, and this "
                "request has made another: reload() works from the next request on"
            )
        state.rollback()
        if state.is_new:
            raise SessionGone("the session is new: there is no record to read yet")
        loaded = await self._storage.load(self.request)
        if loaded.new:
            raise SessionGone("the record was destroyed or has expired meanwhile")
        newest = self._state_of(loaded)
        state.data.clear()
        state.data.update(newest.data)
        _write(loaded, mapping=state.data)
        state.loaded, state.created_at = loaded, newest.created_at
        state.original_own = newest.original_own
        state.cookie.own.clear()
        state.cookie.own.update(newest.original_own)

    async def touch(self) -> bool:
        """Write all of it again: nothing less extends its life."""
        state = self._opened()
        if state.is_new or not state.data:
            return True
        if self.sent_on is not None:
            self._check_can_be_late(state, Action.TOUCH)
        await self._save(state)
        return True

    async def destroy(self) -> None:
        """End the session now."""
        state = self._opened()
        state.intent = Intent.DESTROY
        await self._act(state, self._options.rules, is_late=self.sent_on is not None)

    async def change_id(self, intent: Intent) -> None:
        """Take a new identity, with the data (RENEW) or without (REGENERATE)."""
        state = self._opened()
        if self.sent_on is not None:
            raise SessionNotSent("the id cannot change any more: the headers have left")
        if intent is Intent.RENEW and (state.is_new or self._storage.is_kept_in_cookie()):
            return
        state.leave_for("")
        state.loaded = await self._storage.new()
        if intent is Intent.REGENERATE:
            state.start_over(self._clock())
        state.intent = intent

    async def atomic(self, change: Callable[[Session], T]) -> T:
        """Raise SessionError."""
        raise SessionError(
            f"session.atomic({change!r}) needs a storage that compares and sets, which "
            f"{self._storage.name} does not: use one of aiosess.storages"
        )

    def _opened(self) -> ForeignState:
        if self._state is None:
            raise RuntimeError("the session was not opened")
        return self._state


def _cookie_options(storage: aiohttp_session.AbstractStorage) -> CookieOptions:
    given = storage.cookie_params
    try:
        return CookieOptions(
            path=given.get("path") or "/",
            domain=given.get("domain"),
            max_age=storage.max_age,
            httponly=bool(given.get("httponly")),
            secure=bool(given.get("secure")),
            samesite=cast("Any", given.get("samesite") or False),
        )
    except OptionsError:
        # Browsers may refuse such a cookie; the storage sends it all the same.
        return CookieOptions(samesite=False, secure=False)


def _read(loaded: aiohttp_session.Session, name: str) -> Any:
    """Return what aiohttp_session's own middleware and storages read."""
    return getattr(loaded, f"_{name}")


def _write(loaded: aiohttp_session.Session, **members: object) -> None:
    """Write what aiohttp_session itself writes, and has no setters for."""
    for name, value in members.items():
        setattr(loaded, f"_{name}", value)


def _means_no_answer(error: Exception) -> bool:
    if isinstance(error, StorageUnavailable):
        return True
    names = [each.__name__ for each in type(error).__mro__]
    if any(_REFUSED.search(name) for name in names):
        return False
    return isinstance(error, OSError) or any(_NO_ANSWER.search(name) for name in names)


def _copied(value: Any) -> Original:
    """Return a copy by which later changes inside *value* can be noticed."""
    try:
        return copy.deepcopy(value)
    except Exception:  # noqa: BLE001 - what cannot be copied counts as changed
        return object()


def _is_same(one: Any, other: Any) -> bool:
    """Ask whether both are the same, all the way down; 1, 1.0 and True are three things."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        mine, theirs = cast("Mapping[Any, Any]", one), cast("Mapping[Any, Any]", other)
        return mine.keys() == theirs.keys() and all(
            _is_same(value, theirs[key]) for key, value in mine.items()
        )
    if isinstance(one, list | tuple):
        some, others = cast("list[Any]", one), cast("list[Any]", other)
        return len(some) == len(others) and all(map(_is_same, some, others))
    return bool(one == other)
