"""From the id that came with a request to the session that is handed out."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar
from weakref import ref

from aiohttp import web

from aiosess.attributes import CookieOptions
from aiosess.errors import (
    AiosessError,
    InvalidValue,
    SessionError,
    SessionNotSent,
    StorageUnavailable,
)
from aiosess.events import Reason
from aiosess.exchange.keys import ASKING, hand_out
from aiosess.exchange.stages import Opening, moved
from aiosess.exchange.turns import Turns, this_task
from aiosess.guard.budget import uncounted
from aiosess.privacy import forget_locals
from aiosess.records.aliases import Ended, Left
from aiosess.records.bonds import Bond
from aiosess.records.repository import Repository
from aiosess.records.state import Intent, SessionState, Standing
from aiosess.records.typed import SessionKey
from aiosess.session import SESSION, Session, is_of
from aiosess.spelling import called
from aiosess.transports.base import SignedId, Transport

if TYPE_CHECKING:
    from aiosess.exchange.manager import SessionManager

__all__ = ["Holding"]

P = ParamSpec("P")
T = TypeVar("T")


class Holding(Turns):
    """Opens the session of a request, and holds it while the handler is under way.

    A request holds its exchange and its session. The exchange lets go of both at the end, but for
    weak references, so that no circle is left to the garbage collector.
    """

    # Set on the class, so that a request which never asks for its session builds next to nothing.
    opening: Opening = Opening.UNASKED
    has_left: bool = False
    """Whether it is too late to tell the client anything."""
    is_secure: bool = False
    """Whether the client's connection is encrypted."""
    came: SignedId | None = None
    """The id that came with the request."""
    state: SessionState | None = None
    session: Session | None = None
    """What was handed out, for as long as the handler is under way."""
    handed: tuple[ref[web.Request], ...] = ()
    """The requests in which the session was put; where there are several, they are clones."""
    arrival: Reason = Reason.NOT_ASKED
    """How the session was opened."""
    absent: StorageUnavailable | SessionError | None = None
    """Why there is no session, where it is known that there can be none."""
    is_passive: bool = False
    """Whether the request is no activity: it reads the session, and nothing lives longer by it."""
    bond_until_end: Bond | None = None
    """Whose the session was that was ended in this request."""
    kept_alive: tuple[web.Request, ...] = ()
    """Those of them that the handler may not hold to the end, but may take the session out of."""
    asking: asyncio.Task[Any] | None = None
    """The task that is in a function of the options, ``genid`` or ``cookie``, just now."""

    def __init__(self, manager: SessionManager, request: web.Request) -> None:
        self.manager = manager
        self._request = ref(request)

    @abstractmethod
    def session_of(self, state: SessionState) -> Session:
        """Return what is handed out of *state*."""

    def open(self, request: web.Request, *, required: bool = True) -> Coroutine[Any, Any, Any]:
        """Return, once awaited, the session, loaded the first time.

        Where there can be none, raise what the request gets if one is *required*, and return
        ``None`` if not.
        """
        if self.opening is Opening.UNASKED:
            self.opening = Opening.ASKED
        if self.is_passive:
            self.is_passive = self.manager.is_passive(request)
        return self._open(request, required=required)

    def open_passively(self, request: web.Request) -> Coroutine[Any, Any, Session | None]:
        """Return, once awaited, the session or ``None``; that is no activity of anybody.

        What has been opened as usual in this request stays so.
        """
        if self.opening is Opening.UNASKED:
            self.opening = Opening.ASKED
            self.is_passive = True
        return self._open(request, required=False)

    @called(ASKING)
    async def _open(self, request: web.Request, *, required: bool) -> Session | None:
        self._request = ref(request)
        if self.opening is not Opening.OPEN:
            await self.act(self._read, request, required=required)
        if self.state is None and required:
            await self._stand_in_or_refuse(request)
        if self.state is None:
            return None
        if not self.is_secure and self.transport.is_secure(request):
            await self._settle_cookie(request, self.state)
        return self._hand_out(request, self.state)

    async def act(
        self, act: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what *act* returns, while no other task has its turn, and within the budget.

        RuntimeError in a function of the options: the session waits for that.
        """
        if self.asking is not None and self.asking is this_task():
            raise RuntimeError(
                "the functions genid and cookie of SessionOptions cannot ask for the session of "
                "their request, nor call its verbs: it is not there before they return"
            )

        async def spending() -> T:
            return await self.manager.budget.spend(act, *args, **kwargs)

        try:
            return await self.alone(spending)
        except (AiosessError, web.HTTPException) as error:
            # What was asked of the storage has ids and data in its hands.
            forget_locals(error)
            raise

    async def _stand_in_or_refuse(self, request: web.Request) -> None:
        """Raise why there is no session, unless an empty one may stand in."""
        if not isinstance(self.absent, StorageUnavailable):
            raise self.absent or SessionError("this request has no session")
        await self.do_without(request, self.absent, required=True)

    async def _read(self, request: web.Request, *, required: bool) -> None:
        if self.opening is Opening.OPEN:
            # Another task of this request was at it.
            return
        try:
            self.state = await self._loaded(request)
        except StorageUnavailable as error:
            await self.do_without(request, error, required=required)
        # Where that raised, the next one who asks tries again.
        self.opening = moved(self.opening, Opening.OPEN)

    async def do_without(
        self, request: web.Request, error: StorageUnavailable, *, required: bool
    ) -> None:
        """Take note that there is no session, or that an empty one stands in for it.

        Raise what the request gets where it cannot go on: where one is *required*, or always.
        """
        self.arrival = Reason.UNAVAILABLE
        is_anonymous = self.manager.outage.opens_anonymously(request, error, required=required)
        self.absent = error
        if is_anonymous:
            self.is_secure = self.transport.is_secure(request)
            cookie = await self._answer(self._attributes(request))
            self.state = state = self.repository.fresh(await self._new_id(), cookie)
            state.standing = Standing.ANONYMOUS
            self.session = self.session_of(state)

    async def _loaded(self, request: web.Request) -> SessionState | None:
        """Return the session that came, or a new one; ``None`` where there can be none."""
        transport = self.transport
        self.is_secure = transport.is_secure(request)
        cookie = await self._answer(self._attributes(request))
        if not transport.is_sent(request, cookie):
            self.arrival = Reason.PATH_DIFFERS
            self._note_path(request.rel_url.raw_path, cookie.path)
            return None
        found = await self._first_kept(request, cookie)
        self.arrival = self._arrival(request, found)
        state = await self._or_fresh(found, cookie)
        if self.is_passive:
            # What the record lacks is put in by the next request that is activity.
            state.must_be_written = False
        self.session = self.session_of(state)
        if self.has_left:
            state.conclude()
        return state

    def _say(self, reason: Reason, *, whose: Bond | None = None, **details: Any) -> None:
        """Tell what happened in this request, to its session or to the one that was *whose*."""
        whose = whose or self.bond
        self.manager.events.tell(reason, request=self._request(), whose=whose, **details)

    @property
    def bond(self) -> Bond | None:
        """Whose the session is, or was before this request; ``None``: nobody's."""
        bond = None if self.state is None else self.state.bond or self.state.kept_bond
        return bond or self.bond_until_end

    def _arrival(self, request: web.Request, found: SessionState | Left | None) -> Reason:
        """Return how the session is opened, where *found* is what the id that came leads to."""
        if isinstance(found, SessionState):
            return Reason.OPENED
        if self.came is not None:
            return Reason.NO_RECORD if found is None else Reason.ID_REFUSED
        return Reason.BAD_SIGNATURE if self.transport.has_any(request) else Reason.NO_COOKIE

    async def _first_kept(
        self,
        request: web.Request,
        cookie: CookieOptions,
        *,
        but: SignedId | None = None,
        refused: Left | None = None,
    ) -> SessionState | Left | None:
        """Return the session of the first id in *request* that has a record, and note what came.

        An id without a record may have been planted, or be left from before. The id *but* is known
        to lead to no session, and to be *refused* where that is given. Where no id leads to a
        session, return what refused one of them.
        """
        self._note_ended(refused)
        self.came = but
        passed = set[str]() if but is None else {but.session_id}
        for each in self.transport.read(request):
            if each.session_id in passed:
                continue
            passed.add(each.session_id)
            self.came = self.came or each
            found = await self.repository.load(each.session_id, cookie, is_passive=self.is_passive)
            if isinstance(found, SessionState):
                self.came = each
                return found
            self._note_ended(found)
            refused = refused or found
        return refused

    def _note_ended(self, found: Left | None) -> None:
        """Tell of a session that was ended because an old id of it came back."""
        if isinstance(found, Ended):
            self._say(Reason.REUSE_ENDED, whose=found.bond)

    def _note_path(self, path: str, cookie_path: str) -> None:
        """Take note that there can be no session, since no browser sends its cookie along."""
        self.absent = SessionError(
            f"this request has no session: its path is {path!r}, which is not under "
            f"{cookie_path!r}, the path of the cookie: widen CookieOptions(path=...), or ask by "
            "find_session(), which returns None here"
        )
        self.manager.events.tell_first(
            Reason.OUTSIDE_PATH, request=self._request(), path=path, cookie_path=cookie_path
        )

    async def _or_fresh(
        self, found: SessionState | Left | None, cookie: CookieOptions
    ) -> SessionState:
        """Return what was *found*, else a new session in the place of what came."""
        if isinstance(found, SessionState):
            if found.is_renewal_due and not self.has_left and not self.is_passive:
                # An id that went over the wire in the clear leads to nothing that goes over TLS.
                self._say(Reason.NOW_SECURE)
                await self.repository.move(found, self._new_id)
                found.intent = Intent.RENEW
            return found
        state = self.repository.fresh(await self._new_id(), cookie)
        if found is None and self.came is not None:
            state.stale_id = self.came.session_id
        return state

    async def _settle_cookie(self, request: web.Request, state: SessionState) -> None:
        """Take the attributes for a connection that, says a clone of the request, is encrypted."""
        self.is_secure = True
        cookie = await self._answer(self._attributes(request))
        state.beyond_data()
        state.cookie.base = cookie

    def _hand_out(self, request: web.Request, state: SessionState) -> Session:
        """Return the session, and let it be found in *request*, which may be a clone."""
        # Not by "or": an empty mapping is as good as any.
        session = self.session if self.session is not None else self._held(state)
        if session is None:
            session = self.session_of(state)
            state.conclude()
        if not any(each() is request for each in self.handed):
            state.beyond_data()
            self.handed = (*self.handed, ref(request))
            if self.session is not None:
                self.kept_alive = (*self.kept_alive, request)
            hand_out(request, session)
        return session

    def _held(self, state: SessionState) -> Session | None:
        """Return the session that one of the requests has; ``None`` where none has it."""
        for each in self.handed:
            request = each()
            held = None if request is None else request.get(SESSION)
            if isinstance(held, Session) and is_of(held, state):
                return held
        return None

    def declare(self, key: SessionKey[Any]) -> None:
        """Take note that *key* is used; OptionsError where its name has another type already."""
        self.manager.declare(key)

    def note_invalid(self, error: InvalidValue) -> None:
        """Take note that the default of a key stands for what is kept, and is not of its type."""
        self.manager.events.tell_once(
            Reason.VALUE_INVALID, request=self._request(), key=error.key, why=error.reason
        )

    async def load_session(self, request: web.Request) -> Session:
        """Return the session; SessionError where there can be none."""
        session: Session | None = await self.open(request, required=False)
        if session is None:
            raise SessionError(
                "this request has no session: the storage does not answer, or the path is not "
                "under the cookie's; aiosess.find_session() would return None"
            )
        return session

    @property
    def request(self) -> web.Request:
        """The request, or that clone of it which was asked last; SessionNotSent when it is over."""
        request = self._request()
        if request is None:
            raise SessionNotSent("the request is over: no session can begin in it any more")
        return request

    @property
    def repository(self) -> Repository:
        """The keeper of the session."""
        return self.manager.repository

    @property
    def transport(self) -> Transport:
        """How its id travels."""
        return self.manager.transport

    def _opened(self) -> SessionState:
        """Return the session, to which more is done than to change its data."""
        if self.state is None:
            raise RuntimeError("the session was not opened")
        self.state.beyond_data()
        return self.state

    async def _new_id(self) -> str:
        return await self._answer(self.manager.new_id(self.request))

    def _attributes(self, request: web.Request) -> Coroutine[Any, Any, CookieOptions]:
        return self.transport.attributes(request, is_secure=self.is_secure)

    async def _answer(self, call: Coroutine[Any, Any, T]) -> T:
        """Return what *call* returns, which asks a function of the application's options."""
        self.asking = this_task()
        try:
            return await uncounted(call)
        finally:
            self.asking = None
