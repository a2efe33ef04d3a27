"""One request's session: opened from the cookie that came, committed to the one that goes."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final, ParamSpec, TypeVar

from aiohttp import web
from aiohttp_session import SESSION_KEY

from aiosess.attributes import CookieOptions
from aiosess.errors import SessionGone, SessionNotSent, StorageUnavailable
from aiosess.exchange.keys import Bridge
from aiosess.exchange.manager import Sessions
from aiosess.records.decide import (
    Action,
    CookieAction,
    Rules,
    decide,
    decide_cookie,
    ending,
    is_login,
)
from aiosess.records.state import Intent, SessionState
from aiosess.session import SESSION, Session
from aiosess.transports.cookie import (
    Signed,
    clear_cookie,
    is_secure,
    is_under,
    set_cookie,
    vary_by_cookie,
)

__all__ = ["Visit"]

P = ParamSpec("P")
T = TypeVar("T")

_log: Final = logging.getLogger("aiosess")

_USE_SETUP: Final = "install sessions with aiosess.setup(app, options)"


class Visit(Bridge[SessionState]):
    """One request's session, from the cookie that came to the cookie that goes."""

    # Set on the class, so that a request which never asks for its session builds next to nothing.
    request: web.Request
    sent_on: web.StreamResponse | None = None
    _session: Session | None = None
    _state: SessionState | None = None
    _signed: Signed | None = None
    _waiters: deque[asyncio.Future[None]] | None = None
    _is_busy = False
    _cookie_due = CookieAction.LEAVE
    _cookie_sent = CookieAction.LEAVE
    _is_abandoned = False
    _is_committed = False
    _is_opened = False
    _is_secure = False
    _is_saved = False
    _is_settled = False
    _is_new_to_browser = False

    def __init__(self, sessions: Sessions, request: web.Request) -> None:
        self._sessions = sessions
        self.request = request

    # Open: cookie, id, record, session.

    def open(self, request: web.Request) -> Coroutine[Any, Any, Session | None]:
        """Return, once awaited, the session, loaded the first time; ``None``: there can be none."""
        self.is_asked = True
        self.request = request
        cookies, proxy = self._sessions.cookies, self._sessions.proxy
        if not self._is_opened:
            # In the first case, what request.secure asks.
            self._is_secure = (
                request.scheme == "https" if proxy is None else is_secure(request, proxy=proxy)
            )
        if cookies is None:
            return self._open_with_own_cookie(request)
        return self._open(request, cookies[self._is_secure])

    async def _open_with_own_cookie(self, request: web.Request) -> Session | None:
        """Do so where the attributes of the cookie depend on the request."""
        if self._is_opened:
            return self._found_again(request)
        cookie = await self._sessions.cookie_for(request, is_secure=self._is_secure)
        if is_under(request.rel_url.raw_path, cookie.path):
            return await self._open(request, cookie)
        self._is_opened = True
        return None

    async def _open(self, request: web.Request, cookie: CookieOptions) -> Session | None:
        if self._is_opened:
            return self._found_again(request)
        if self._is_busy:
            await self._turn()
            self._pass_on()
            # Another task of this request was at it, and may have failed.
            return await self._open(request, cookie)
        self._is_busy = True
        sessions, state = self._sessions, None
        try:
            self._signed = signed = sessions.signer.read(sessions.name, request)
            if signed is not None:
                session_id, keeper = signed.session_id, sessions.keeper
                if keeper.touching is not None and keeper.is_due(session_id):
                    state = await keeper.load(session_id, cookie)
                else:
                    # What load() does, with a coroutine less.
                    stored = await keeper.fetch(session_id)
                    if stored is not None:
                        state = keeper.read(session_id, stored, cookie) or await keeper.follow(
                            session_id, stored, cookie
                        )
            if state is None:
                state = await self._begin(request, cookie)
            elif sessions.acts_on_reads or not (signed and signed.is_current):
                state.is_plain = False
            self._state = state
            self._session = session = Session(state, self)
            # What hand_out() does, with a call less.
            request[SESSION] = request[SESSION_KEY] = session
            self._is_opened = True
        except StorageUnavailable as error:
            self._without_storage(error)
            self._is_opened = True
            return None
        finally:
            if self._waiters is None:
                self._is_busy = False
            else:
                self._pass_on()
        return session

    def _found_again(self, request: web.Request) -> Session | None:
        # Once the visit has left its request, a middleware outside ours still finds it there.
        return request.get(SESSION) if self._session is None else self._session

    async def _begin(self, request: web.Request, cookie: CookieOptions) -> SessionState:
        """Return a session that is not kept yet."""
        state = self._sessions.keeper.fresh(await self._sessions.new_id(request), cookie)
        state.stale_id = self._signed and self._signed.session_id
        return state

    async def _alone(
        self, act: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Let one task of this request at a time have its say, in the order in which they came."""
        if self._is_busy:
            await self._turn()
        self._is_busy = True
        try:
            return await act(*args, **kwargs)
        finally:
            self._pass_on()

    async def _turn(self) -> None:
        """Wait for the turn; who has it is the one for whom the visit is busy."""
        if self._waiters is None:
            self._waiters = deque()
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                # The turn came just then, and is not taken.
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        """Hand the turn to the first who waits for it."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return
        self._is_busy = False

    def session_of(self, state: SessionState) -> Session:
        """Return what handlers hold of *state*."""
        return Session(state, self)

    # Commit: decide, act, tell the browser.

    def end(self, response: web.StreamResponse) -> Coroutine[Any, Any, None] | None:
        """Commit at once where the session was only read, else return what does when awaited."""
        state = self._state
        if state is None or not state.is_plain or not self._is_held():
            return self.commit(response)
        if state.originals or self._sessions.keeper.is_due(state.session_id):
            is_in_time = self.sent_on is None and not response.prepared
            if is_in_time and state.originals.keys().isdisjoint(self._sessions.options.renew_on):
                return self._keep_data(state, response)
            return self.commit(response)
        self._is_settled = self._is_committed = True
        self.sent_on = response
        if not self._sessions.is_told_of_headers:
            vary_by_cookie(response)
        return None

    async def commit(self, response: web.StreamResponse) -> None:
        """Keep what the handler did, then write the cookie into *response*.

        Where the handler prepared *response* itself, only the record can still be changed.
        Raise HTTPInternalServerError as ``retries`` says, SessionNotSent where it is too late.
        """
        if response.prepared or self._has_left():
            # In the second case an error was raised, or another response returned, after a stream.
            await self._commit_late()
            return
        if not self._is_abandoned:
            try:
                await self._settle()
            except StorageUnavailable as error:
                self._without_storage(error)
        self._finish(response)
        if self.is_asked:
            vary_by_cookie(response)

    def _is_held(self) -> bool:
        """Ask whether the request still has its session, or somebody took it out."""
        try:
            return self.request[SESSION] is self._session
        except KeyError:
            return False

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Do the same for a response whose headers are about to leave."""
        if not self._is_settled:
            try:
                await self._settle()
            except StorageUnavailable as error:
                self._without_storage(error)
                if self._state is not None and self._state.is_new:
                    # The browser will not learn its id: there is nothing to keep later.
                    self._state.is_gone = True
        elif self._is_changed_again():
            await self._settle_again(request)
        if self.sent_on is not response or self._cookie_due is not self._cookie_sent:
            self._finish(response)
        vary_by_cookie(response)

    def is_ready(self, response: web.StreamResponse) -> bool:
        """Ask whether *response* can leave as it is; False: it takes prepare()."""
        if not self.is_asked:
            self.sent_on = response
            return True
        if self.sent_on is not response:
            return False
        state = self._state
        if state is not None and state.is_plain:
            if state.originals:
                return False
        elif (state is not None and state.may_be_modified) or (
            self._cookie_due is not self._cookie_sent
        ):
            return False
        # A FileResponse, or a middleware outside ours, may have written a Vary of its own.
        vary_by_cookie(response)
        return True

    def _has_left(self) -> bool:
        """Ask whether the headers have left."""
        return self.sent_on is not None and self.sent_on.prepared

    def _is_changed_again(self) -> bool:
        """Ask whether a middleware outside ours changed the session after our commit."""
        state = self._state
        if state is None or state.is_gone or not self._is_committed or not state.may_be_modified:
            return False
        return state.intent is not Intent.KEEP or state.is_modified

    async def _settle_again(self, request: web.Request) -> None:
        state = self._opened()
        self.request = request
        try:
            await self._alone(self._act, state, Rules(), is_late=False)
        except StorageUnavailable as error:
            self._without_storage(error)

    def leave(self) -> None:
        """Let go of the request and of its session, now that the response is made.

        Each holds the visit, and would be freed only when the garbage collector finds the circle.
        """
        self._session = None
        del self.request

    def abandon(self) -> None:
        """Keep nothing more: the handler failed, or the response that it prepared."""
        self._is_settled = self._is_abandoned = True

    async def _commit_late(self) -> None:
        """Keep what a stream or WebSocket did after its headers had left."""
        try:
            await self._settle(is_late=True)
        except StorageUnavailable as error:
            if self._sessions.options.retries is not None:
                # It is too late for an answer with status 500.
                raise
            self._without_storage(error)
        if self._is_new_to_browser and self.sent_on is None:
            raise SessionNotSent(
                "the session was saved, but the response was prepared without its cookie: "
                + _USE_SETUP
            )

    async def _settle(self, *, is_late: bool = False) -> None:
        self._is_settled = True
        state = self._state
        if state is None or state.is_gone:
            return
        if not self._is_held():
            if self._sessions.options.unset == "keep":
                state.rollback()
                return
            state.intent = Intent.DESTROY
        state.is_plain = False
        rules = self._sessions.options.rules
        if self._is_saved:
            # What the handler saved itself is not written a second time.
            rules = replace(rules, resave=False)
        await self._alone(self._act, state, rules, is_late=is_late)
        self._is_committed = True

    async def _keep_data(self, state: SessionState, response: web.StreamResponse) -> None:
        """Do what the tables say of a session of which only data was changed, as in most writes."""
        self._is_settled = True
        if self._is_busy:
            await self._turn()
        self._is_busy = True
        keeper = self._sessions.keeper
        try:
            is_modified = state.writing()
            if is_modified:
                is_kept = await keeper.write(state)
            else:
                is_kept = not keeper.is_touch_due(state) or await keeper.touch(
                    state, is_renewal_told=False
                )
            if not is_kept:
                self._is_interrupted()
            elif is_modified and state.cookie.is_persistent and not state.is_alias:
                self._cookie_due = CookieAction.SET
            self._is_committed = True
        except StorageUnavailable as error:
            self._without_storage(error)
        finally:
            if self._waiters is None:
                self._is_busy = False
            else:
                self._pass_on()
        self.sent_on = response
        if self._cookie_due is not CookieAction.LEAVE:
            self._finish(response)
        if not self._sessions.is_told_of_headers:
            vary_by_cookie(response)

    async def _act(self, state: SessionState, rules: Rules, *, is_late: bool) -> None:
        """Decide, and do to the record what was decided."""
        if is_login(state, self._sessions.options.renew_on):
            await self._renew_at_login(state, is_late=is_late)
        keeper = self._sessions.keeper
        is_resigned = self._signed is not None and not self._signed.is_current
        end = ending(state, is_touch_due=keeper.is_touch_due(state), is_resigned=is_resigned)
        action = decide(end, rules)
        is_cookie_changed = state.cookie.own != state.original_own
        is_kept = True
        match action:
            case Action.NOTHING:
                pass
            case Action.CREATE | Action.RENEW:
                if self._is_withheld(state):
                    return
                if is_late:
                    raise SessionNotSent(
                        "the session changed when the headers had left, so that its cookie cannot "
                        f"be sent: await session.save() before prepare(), and {_USE_SETUP}"
                    )
                is_kept = await self._keep_under_new_id(state)
            case Action.REPLACE:
                is_kept = await keeper.replace(state)
            case Action.TOUCH:
                # A cookie that is sent again must not put an id back that was renewed meanwhile.
                is_cookie_due = rules.rolling or is_resigned
                is_kept = await keeper.touch(state, is_renewal_told=is_cookie_due)
            case Action.DELETE:
                await self._delete(state)
        if not is_kept:
            self._is_interrupted()
            return
        self._cookie_due = decide_cookie(
            action,
            end,
            rules,
            # Attributes that the handler set count only once the browser has them.
            is_persistent=is_cookie_changed or state.cookie.is_persistent,
            is_alias=state.is_alias,
        ).after(self._cookie_due)

    async def _renew_at_login(self, state: SessionState, *, is_late: bool) -> None:
        if is_late:
            _log.warning("a login in a streamed response keeps the session id: the headers left")
            return
        await self._change_id(state, Intent.RENEW)

    async def _keep_under_new_id(self, state: SessionState) -> bool:
        is_kept = True
        if state.intent is Intent.RENEW and state.previous is not None:
            is_kept = await self._sessions.keeper.renew(state, state.previous)
        else:
            await self._sessions.keeper.create(state)
        state.intent = Intent.KEEP
        self._is_new_to_browser = is_kept
        return is_kept

    async def _delete(self, state: SessionState) -> None:
        await self._sessions.keeper.delete(state)
        if self._has_left():
            # No other session can begin in this response.
            state.is_gone = True
        elif state.intent is Intent.EMPTY:
            # An id whose record was deleted is never used again.
            state.session_id = await self._sessions.new_id(self.request)
            state.intent = Intent.KEEP

    def _is_interrupted(self) -> None:
        _log.warning("a session ended while a request was using it: its changes were dropped")
        self._cookie_due = CookieAction.CLEAR

    def _is_withheld(self, state: SessionState) -> bool:
        """Ask whether a browser would refuse the cookie; the log says why, once."""
        name = self._sessions.options.name
        if not state.cookie.secure and name.lower().startswith(("__host-", "__secure-")):
            self._sessions.log_once(
                f"the cookie {name!r} is withheld and no session kept: its name needs a secure "
                "connection, and this one is not; behind a TLS proxy, set proxy=True"
            )
            return True
        if state.cookie.secure and not self._is_secure:
            self._sessions.log_once(
                f"the cookie {name!r} is withheld and no session kept: it is secure, and the "
                "connection is not; behind a TLS proxy, set proxy=True, and for plain HTTP "
                "CookieOptions(secure='auto')"
            )
            return True
        return False

    def _without_storage(self, error: StorageUnavailable) -> None:
        if self._sessions.options.retries is None:
            _log.warning("the request goes on without its session: %s", error)
            return
        _log.error("the request is refused without its session: %s", error)
        raise web.HTTPInternalServerError(text="The session storage does not answer.") from error

    def _finish(self, response: web.StreamResponse) -> None:
        """Write what is due into the headers."""
        self.sent_on = response
        due = self._cookie_sent = self._cookie_due
        state = self._state
        if due is CookieAction.LEAVE or state is None:
            return
        name = self._sessions.options.name
        if due is CookieAction.CLEAR:
            clear_cookie(response, name, state.cookie)
        elif not self._is_withheld(state):
            value = self._sessions.options.signer.sign(state.session_id)
            set_cookie(response, name, value, state.cookie, now=self._sessions.keeper.now())

    # What the session can have done at once.

    async def save(self) -> bool:
        """Write what was changed; False when the record is gone."""
        return await self._alone(self._save, self._opened())

    async def _save(self, state: SessionState) -> bool:
        if not state.is_gone:
            rules = Rules(save_uninitialized=True)
            await self._act(state, rules, is_late=self._has_left())
            self._is_saved = True
        # What is still new was not kept, since its cookie is withheld.
        return not state.is_gone and not state.is_new

    async def reload(self) -> None:
        """Read the record again."""
        await self._alone(self._reload, self._opened())

    async def _reload(self, state: SessionState) -> None:
        state.rollback()
        try:
            await self._sessions.keeper.reload(state)
        except SessionGone:
            self._note_gone(state)
            raise

    async def touch(self) -> bool:
        """Extend the record's life; False when it is gone."""
        return await self._alone(self._touch, self._opened())

    async def _touch(self, state: SessionState) -> bool:
        if state.is_new or state.is_gone:
            return not state.is_gone
        is_kept = await self._sessions.keeper.touch(state)
        if not is_kept:
            self._is_interrupted()
        return is_kept

    async def destroy(self) -> None:
        """Delete the record now, and the cookie with the response."""
        await self._alone(self._destroy, self._opened())

    async def _destroy(self, state: SessionState) -> None:
        await self._sessions.keeper.delete(state)
        state.intent = Intent.DESTROY
        if self._signed is not None or self._is_new_to_browser:
            self._cookie_due = CookieAction.CLEAR

    async def change_id(self, intent: Intent) -> None:
        """Take a new id, with the data (RENEW) or without (REGENERATE)."""
        await self._alone(self._change_id, self._opened(), intent)

    async def _change_id(self, state: SessionState, intent: Intent) -> None:
        if self._has_left():
            raise SessionNotSent("the id cannot change any more: the headers have left")
        if intent is Intent.RENEW and state.is_new:
            # Nobody knows this id yet.
            return
        if intent is Intent.RENEW and state.is_alias:
            # Who comes with an old id may be a stranger to who has the new one, either way round.
            state.part_for(await self._sessions.new_id(self.request), self._sessions.keeper.now())
            return
        state.leave_for(await self._sessions.new_id(self.request))
        if intent is Intent.REGENERATE:
            state.start_over(self._sessions.keeper.now())
        state.intent = intent

    async def atomic(self, change: Callable[[Session], T]) -> T:
        """Apply *change* to the newest data, and write it."""
        if inspect.iscoroutinefunction(change):
            raise TypeError(f"atomic({change!r}): give a plain function, it may be called again")
        return await self._alone(self._atomic, self._opened(), change)

    async def _atomic(self, state: SessionState, change: Callable[[Session], T]) -> T:
        if state.previous is not None:
            await self._save(state)
        if state.is_new:
            return self._apply(change, state)
        try:
            return await self._sessions.keeper.atomic(
                state, lambda newest: self._apply(change, newest)
            )
        except SessionGone:
            self._note_gone(state)
            raise

    def _apply(self, change: Callable[[Session], T], state: SessionState) -> T:
        result = change(Session(state, self))
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"atomic({change!r}) returned a coroutine: give a plain function")
        return result

    def _note_gone(self, state: SessionState) -> None:
        if state.is_gone:
            self._is_interrupted()

    def _opened(self) -> SessionState:
        """Return the session, to which more is done than to change its data."""
        if self._state is None:
            raise RuntimeError("the session was not opened")
        self._state.is_plain = False
        return self._state
