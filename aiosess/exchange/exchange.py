"""A request and its response: the session is opened, handed out, and committed.

This is the whole way, for each session, storage and transport, written to be read. ``fast`` has a
shorter one for sessions of which only the data are used.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import ref

from aiohttp import web

from aiosess.attributes import CookieOptions
from aiosess.errors import (
    AiosessError,
    SessionError,
    SessionGone,
    SessionNotSent,
    StorageUnavailable,
    UnserializableValue,
)
from aiosess.events import Reason
from aiosess.exchange.keys import hand_out
from aiosess.exchange.stages import Commit, Opening, moved
from aiosess.exchange.turns import Turns
from aiosess.records.decide import Action, Reply, Rules, decide, decide_reply, is_login
from aiosess.records.repository import Repository
from aiosess.records.state import Intent, SessionState
from aiosess.session import SESSION, Session
from aiosess.transports.base import Lines, SignedId, Transport

if TYPE_CHECKING:
    from aiosess.exchange.manager import SessionManager

__all__ = ["Exchange"]

T = TypeVar("T")

_USE_SETUP: Final = "install sessions with aiosess.setup(app, options)"


class Exchange(Turns):
    """One request and its response, and the session between them.

    It also stands where aiohttp_session expects the request's storage, so that
    ``aiohttp_session.get_session(request)`` and ``new_session(request)`` return our sessions.

    A request holds its exchange and its session. The exchange holds the request by a weak reference
    and lets go of the session at the end, so that no circle is left to the garbage collector.
    """

    # Set on the class, so that a request which never asks for its session builds next to nothing.
    opening: Opening = Opening.UNASKED
    stage: Commit = Commit.PENDING
    due: Reply = Reply.LEAVE
    """What the client is to be told."""
    told: Lines = ()
    """What the client was told by the headers of ``told_on``."""
    told_on: web.StreamResponse | None = None
    has_left: bool = False
    """Whether it is too late to tell the client anything."""
    ahead_of: SessionManager | None = None
    """Whose middleware is still to come: one in front of it asked for the session already."""
    is_secure: bool = False
    """Whether the client's connection is encrypted."""
    is_saved: bool = False
    """Whether the handler saved the session itself."""
    came: SignedId | None = None
    """The id that came with the request."""
    state: SessionState | None = None
    session: Session | None = None
    """What was handed out, for as long as the handler is under way."""
    handed: tuple[ref[web.Request], ...] = ()
    """The requests in which the session was put; where there are several, they are clones."""
    _is_watched: bool = False

    def __init__(self, manager: SessionManager, request: web.Request) -> None:
        self.manager = manager
        self._request = ref(request)

    # Open: from the id that came to the session.

    def open(self, request: web.Request) -> Coroutine[Any, Any, Session | None]:
        """Return, once awaited, the session, loaded the first time; ``None``: there can be none."""
        if self.opening is Opening.UNASKED:
            self.opening = Opening.ASKED
        if self.stage is Commit.NEVER:
            # The handler failed; what a middleware outside of ours does from here on counts.
            self.stage = moved(self.stage, Commit.PENDING)
        return self._open(request)

    async def _open(self, request: web.Request) -> Session | None:
        self._request = ref(request)
        if self.opening is not Opening.OPEN:
            await self.alone(self._read, request)
        if self.state is None:
            return None
        if not self.is_secure and self.transport.is_secure(request):
            await self._settle_cookie(request, self.state)
        return self._hand_out(request, self.state)

    async def _read(self, request: web.Request) -> None:
        if self.opening is Opening.OPEN:
            # Another task of this request was at it.
            return
        try:
            self.state = await self._loaded(request)
        except StorageUnavailable as error:
            self.manager.outage.meet(error)
        # Where that raised, the next one who asks tries again.
        self.opening = moved(self.opening, Opening.OPEN)

    async def _loaded(self, request: web.Request) -> SessionState | None:
        """Return the session that came, or a new one; ``None`` where there can be none."""
        transport, repository = self.transport, self.repository
        self.is_secure = transport.is_secure(request)
        cookie = await transport.attributes(request, is_secure=self.is_secure)
        if cookie is None:
            return None
        self.came = came = transport.read(request)
        found = None if came is None else await repository.load(came.session_id, cookie)
        state = await self._or_fresh(found, cookie)
        self.session = self.session_of(state)
        if self.has_left:
            self.session.conclude()
        return state

    async def _or_fresh(self, found: SessionState | None, cookie: CookieOptions) -> SessionState:
        """Return what was *found*, else a new session in the place of what came."""
        if found is not None:
            return found
        state = self.repository.fresh(await self._new_id(), cookie)
        state.stale_id = self.came and self.came.session_id
        return state

    async def _settle_cookie(self, request: web.Request, state: SessionState) -> None:
        """Take the attributes for a connection that, says a clone of the request, is encrypted."""
        self.is_secure = True
        cookie = await self.transport.attributes(request, is_secure=True)
        if cookie is not None:
            state.beyond_data()
            state.cookie.base = cookie

    def _hand_out(self, request: web.Request, state: SessionState) -> Session:
        """Return the session, and let it be found in *request*, which may be a clone."""
        # Not by "or": an empty mapping is as good as any.
        session = self.session if self.session is not None else self._held(state)
        if session is None:
            session = self.session_of(state)
            session.conclude()
        if not any(each() is request for each in self.handed):
            self.handed = (*self.handed, ref(request))
            hand_out(request, session)
        return session

    def _held(self, state: SessionState) -> Session | None:
        """Return the session that one of the requests has; ``None`` where none has it."""
        for each in self.handed:
            request = each()
            held = None if request is None else request.get(SESSION)
            if isinstance(held, Session) and held.is_of(state):
                return held
        return None

    async def load_session(self, request: web.Request) -> Session:
        """Return the session; SessionError where there can be none."""
        session = await self.open(request)
        if session is None:
            raise SessionError(
                "this request has no session: the storage does not answer, or the path is not "
                "under the cookie's; aiosess.get_session() would return None"
            )
        return session

    async def new_session(self) -> Session:
        """Return an empty session with a new id; the record that there was is deleted.

        The object that was handed out before keeps what it held, for those who carry it over.
        """
        session = await self.load_session(self.request)
        held = self.state
        if held is None:
            return session
        self.state = state = held.apart()
        try:
            await self.change_id(Intent.REGENERATE)
        except BaseException:
            self.state = held
            raise
        is_over = self.session is None
        self.session = session = self.session_of(state)
        for each in self.handed:
            request = each()
            if request is not None:
                hand_out(request, session)
        if is_over:
            self.leave()
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
        """Who keeps the session."""
        return self.manager.repository

    @property
    def transport(self) -> Transport:
        """How its id travels."""
        return self.manager.transport

    def session_of(self, state: SessionState) -> Session:
        """Return what is handed out of *state*."""
        return Session(state, self)

    # Commit: decide, act, tell the client.

    def end(self, response: web.StreamResponse) -> Coroutine[Any, Any, None] | None:
        """Begin to commit, and return what is still to be awaited, where anything is."""
        return self.commit(response)

    async def commit(self, response: web.StreamResponse) -> None:
        """Keep what the handler did, then tell the client by *response*.

        Where *response* has left already, only the record can still be changed: raise
        SessionNotSent where that is not enough. Raise what the outage policy says where the storage
        does not answer. What has begun is finished even if the task is cancelled meanwhile.
        """
        try:
            await self._to_its_end(response, has_left=response.prepared or self.has_left)
        finally:
            self.leave()

    async def prepare(self, response: web.StreamResponse) -> None:
        """Commit, for a response whose headers are about to leave."""
        if self.opening is not Opening.UNASKED:
            await self._to_its_end(response, has_left=False)
            if self.stage is Commit.BEGUN and self.state is not None and self.state.is_new:
                # The client will not learn the id: there is nothing to keep later.
                self.state.is_gone = True
        self.has_left = True
        if self.ahead_of is not None:
            # The middleware in front of ours has answered by itself.
            self.leave()

    def let_go(self, response: web.StreamResponse) -> bool:
        """Let *response* leave as it is, where nothing is to be done; False: it takes prepare()."""
        if self.opening is Opening.UNASKED:
            self.has_left = True
        return self.has_left

    def abandon(self) -> None:
        """Forget what was not kept yet: the handler failed, or the response that it prepared."""
        if self.state is not None and not self.state.is_gone:
            self.state.rollback()
        self.stage = moved(self.stage, Commit.NEVER)
        self.leave()

    def leave(self) -> None:
        """Let go of the session, now that the response is made."""
        session, self.session = self.session, None
        if session is not None:
            session.conclude()
        if not self.manager.is_told_of_headers:
            self.has_left = True

    async def _to_its_end(self, response: web.StreamResponse, *, has_left: bool) -> None:
        try:
            await self._commit(response, has_left=has_left)
        except asyncio.CancelledError:
            # The client is gone, perhaps; what the handler did is not.
            self.manager.finish(self._finish(response, has_left=has_left))
            raise

    async def _finish(self, response: web.StreamResponse, *, has_left: bool) -> None:
        """Do again, in a task of its own, what was interrupted."""
        self.stage = moved(self.stage, Commit.PENDING)
        try:
            await self._commit(response, has_left=has_left)
        except (AiosessError, web.HTTPException) as error:
            self.manager.events.tell(Reason.NOT_FINISHED, error=repr(error))

    async def _commit(self, response: web.StreamResponse, *, has_left: bool) -> None:
        try:
            if self._is_to_be_settled(has_left=has_left):
                rules = self.manager.rules
                rules = rules.again() if self.stage is Commit.DONE else rules
                await self._settle(rules, has_left=has_left)
        except StorageUnavailable as error:
            self.manager.outage.meet(error, has_left=has_left)
        if has_left:
            self._check_told()
        else:
            self._tell(response)

    def _is_to_be_settled(self, *, has_left: bool) -> bool:
        """Ask whether there may be anything to do: not where it failed, or was done already."""
        match self.stage:
            case Commit.PENDING:
                return True
            case Commit.BEGUN:
                # A stream may have gone on for hours since.
                return has_left
            case Commit.DONE:
                return has_left or self._is_changed_again()
            case Commit.NEVER:
                return False

    def _is_changed_again(self) -> bool:
        """Ask whether a middleware outside ours changed the session after our commit."""
        state = self.state
        if state is None or state.is_gone:
            return False
        if not self._is_held(state):
            return True
        return state.may_be_modified and (state.intent is not Intent.KEEP or state.is_modified)

    def _is_held(self, state: SessionState) -> bool:
        """Ask whether the requests still have their session, or somebody took it out."""
        requests = [request for each in self.handed if (request := each()) is not None]
        held = [request.get(SESSION) for request in requests]
        return all(isinstance(each, Session) and each.is_of(state) for each in held)

    async def _settle(self, rules: Rules, *, has_left: bool) -> None:
        self.stage = moved(self.stage, Commit.BEGUN)
        state = self.state
        if state is not None and not state.is_gone:
            state.beyond_data()
            if self._is_held(state):
                await self.alone(self._act, state, rules, has_left=has_left)
            elif self.manager.options.unset == "destroy":
                state.intent = Intent.DESTROY
                await self.alone(self._act, state, rules, has_left=has_left)
            else:
                state.rollback()
        self.stage = moved(self.stage, Commit.DONE)

    async def _act(self, state: SessionState, rules: Rules, *, has_left: bool) -> None:
        """Decide, do to the record what was decided, and take note of what the client must hear."""
        if is_login(state, self.manager.options.plan.renew_on):
            await self._renew_at_login(state, has_left=has_left)
        is_resigned = self.came is not None and not self.came.is_current
        end = self.repository.ending(state, is_resigned=is_resigned, is_saved=self.is_saved)
        action = decide(end, rules)
        is_cookie_changed = state.cookie.own != state.original_own
        if action in {Action.CREATE, Action.RENEW} and self._is_withheld(state):
            self._say_why_withheld(state)
            return
        if has_left and self.transport.is_told_of(action, state):
            raise SessionNotSent(
                "the session changed when the headers had left, so that its cookie cannot be sent: "
                f"await session.save() before prepare(), and {_USE_SETUP}"
            )
        # A cookie that is sent again must not put an id back that was renewed meanwhile.
        if not await self._do(action, state, is_cookie_due=rules.rolling or is_resigned):
            self._drop_changes()
            return
        self.due = decide_reply(
            action,
            end,
            rules,
            # Attributes that the handler set count only once the browser has them.
            is_persistent=is_cookie_changed or state.cookie.is_persistent,
            is_alias=state.is_alias,
        ).after(self.due)

    async def _do(self, action: Action, state: SessionState, *, is_cookie_due: bool) -> bool:
        """Do *action* to the record; False where the record went meanwhile."""
        match action:
            case Action.NOTHING:
                return True
            case Action.CREATE | Action.RENEW:
                return await self._keep_under_new_id(state)
            case Action.REPLACE:
                return await self.repository.replace(state)
            case Action.TOUCH:
                return await self.repository.touch(state, is_renewal_told=is_cookie_due)
            case Action.DELETE:
                await self._delete(state)
                return True

    async def _keep_under_new_id(self, state: SessionState) -> bool:
        is_kept = True
        if state.intent is Intent.RENEW and state.previous is not None:
            is_kept = await self.repository.renew(state, state.previous)
        else:
            await self.repository.create(state)
        state.intent = Intent.KEEP
        return is_kept

    async def _delete(self, state: SessionState) -> None:
        await self.repository.delete(state)
        if self.has_left:
            # No other session can begin in this response.
            state.is_gone = True
        elif state.intent is Intent.EMPTY:
            # An id whose record was deleted is never used again.
            state.session_id = await self._new_id()
            state.intent = Intent.KEEP

    async def _renew_at_login(self, state: SessionState, *, has_left: bool) -> None:
        if has_left:
            self.manager.events.tell(Reason.LOGIN_IN_STREAM)
            return
        await self._change_id(state, Intent.RENEW)

    def _drop_changes(self) -> None:
        self.manager.events.tell(Reason.SESSION_ENDED)
        self.due = Reply.CLEAR

    def _is_withheld(self, state: SessionState) -> bool:
        """Ask whether the client would refuse the cookie."""
        return self.transport.withheld_because(state, is_secure=self.is_secure) is not None

    def _say_why_withheld(self, state: SessionState) -> None:
        reason = self.transport.withheld_because(state, is_secure=self.is_secure)
        if reason is not None:
            self.manager.events.tell_once(reason, name=self.manager.options.name)

    def _tell(self, response: web.StreamResponse) -> None:
        """Write into the headers of *response* what the client is to be told."""
        state, due = self.state, self.due
        if state is not None:
            if due is Reply.SEND and self._is_withheld(state):
                self._say_why_withheld(state)
                due = Reply.LEAVE
            self.told = self.transport.tell(response, due, state, self.told)
        self.told_on = response
        if self.opening is not Opening.UNASKED:
            self.transport.vary(response)

    def _check_told(self) -> None:
        """Raise SessionNotSent where a new session was saved whose cookie never left."""
        state = self.state
        if state is None or state.is_new or self.told_on is not None or state.is_alias:
            return
        if self.came is None or self.came.session_id != state.session_id:
            raise SessionNotSent(
                f"the session was saved, but the response was prepared without its cookie: "
                f"{_USE_SETUP}"
            )

    # Late: what is changed when the response is made.

    def note_late(self) -> None:
        """Take note that a session is used whose response is made: what changes is kept if it can.

        Where the headers are still to leave, that is looked at when the task is done that uses it:
        the signal may have kept it by then. Else it is looked at in the next tick.
        """
        if self._is_watched:
            return
        self._is_watched = True
        task = asyncio.current_task()
        if self.has_left or task is None:
            asyncio.get_running_loop().call_soon(self._look_late)
        else:
            task.add_done_callback(self._look_late)

    def _look_late(self, _task: asyncio.Task[Any] | None = None) -> None:
        self._is_watched = False
        try:
            is_changed = self._is_changed_again()
        except UnserializableValue as error:
            self.manager.events.tell(Reason.CHANGED_TOO_LATE, error=error)
            return
        if is_changed:
            self.manager.finish(self._keep_late())

    async def _keep_late(self) -> None:
        if self.stage is Commit.NEVER:
            self.stage = moved(self.stage, Commit.PENDING)
        try:
            await self._settle(self.manager.rules.again(), has_left=True)
        except AiosessError as error:
            self.manager.events.tell(Reason.CHANGED_TOO_LATE, error=error)

    # What the session can have done at once.

    async def save(self) -> bool:
        """Write what was changed; False when the record is gone."""
        return await self.alone(self._save, self._opened())

    async def _save(self, state: SessionState) -> bool:
        if not state.is_gone:
            await self._act(state, self.manager.rules.at_once(), has_left=self.has_left)
            self.is_saved = True
        # What is still new was not kept, since its cookie is withheld.
        return not state.is_gone and not state.is_new

    async def reload(self) -> None:
        """Read the record again."""
        await self.alone(self._unless_gone, self.repository.reload, self._opened())

    async def _unless_gone(
        self, act: Callable[[SessionState], Coroutine[Any, Any, T]], state: SessionState
    ) -> T:
        """Return what *act* returns; where it finds that the record went, the client is told."""
        try:
            return await act(state)
        except SessionGone:
            if state.is_gone:
                self._drop_changes()
            raise

    async def touch(self) -> bool:
        """Extend the record's life; False when it is gone."""
        return await self.alone(self._touch, self._opened())

    async def _touch(self, state: SessionState) -> bool:
        if state.is_new or state.is_gone:
            return not state.is_gone
        self._check_can_be_told(Action.TOUCH, state)
        is_kept = await self.repository.touch(state)
        if not is_kept:
            self._drop_changes()
        return is_kept

    async def destroy(self) -> None:
        """Delete the record now, and the cookie with the response."""
        await self.alone(self._destroy, self._opened())

    async def _destroy(self, state: SessionState) -> None:
        self._check_can_be_told(Action.DELETE, state)
        await self.repository.delete(state)
        state.intent = Intent.DESTROY
        if self.came is not None or self.due is not Reply.LEAVE:
            self.due = Reply.CLEAR

    async def change_id(self, intent: Intent) -> None:
        """Take a new id, with the data (RENEW) or without (REGENERATE)."""
        await self.alone(self._change_id, self._opened(), intent)

    async def _change_id(self, state: SessionState, intent: Intent) -> None:
        if self.has_left:
            raise SessionNotSent(
                f"the id cannot change any more, the headers have left: change it earlier, "
                f"or {_USE_SETUP}"
            )
        if intent is Intent.RENEW and not self.repository.can_renew(state):
            return
        if intent is Intent.RENEW and state.is_alias:
            # Whoever comes with an old id may be a stranger to the one who has the new id.
            state.fork_to(await self._new_id(), self.repository.now())
            return
        await self.repository.move(state, self._new_id)
        if intent is Intent.REGENERATE:
            state.clear(self.repository.now())
        state.intent = intent

    async def atomic(self, change: Callable[[Session], T]) -> T:
        """Apply *change* to the newest data, and write it."""
        if inspect.iscoroutinefunction(change):
            raise TypeError(f"atomic({change!r}): give a plain function, it may be called again")
        return await self.alone(self._atomic, self._opened(), change)

    async def _atomic(self, state: SessionState, change: Callable[[Session], T]) -> T:
        if state.previous is not None:
            await self._save(state)

        async def changed(held: SessionState) -> T:
            return await self.repository.atomic(held, lambda newest: self._apply(change, newest))

        return await self._unless_gone(changed, state)

    def _apply(self, change: Callable[[Session], T], state: SessionState) -> T:
        result = change(self.session_of(state))
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"atomic({change!r}) returned a coroutine: give a plain function")
        return result

    def _check_can_be_told(self, action: Action, state: SessionState) -> None:
        if self.has_left and self.transport.is_told_of(action, state):
            raise SessionNotSent(
                "the headers have left, so that the cookie cannot be sent which this takes: "
                f"do it before prepare(), and {_USE_SETUP}"
            )

    def _opened(self) -> SessionState:
        """Return the session, to which more is done than to change its data."""
        if self.state is None:
            raise RuntimeError("the session was not opened")
        self.state.beyond_data()
        return self.state

    async def _new_id(self) -> str:
        return await self.manager.new_id(self.request)
