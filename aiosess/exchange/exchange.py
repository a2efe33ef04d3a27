"""A request and its response: the session is opened, handed out, and committed.

This is the whole way, for each session, storage and transport, written to be read. ``holding``
opens the session, ``acting`` does to its record what is asked, and here it comes to its end.
``fast`` has a shorter way for sessions of which only the data are used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any
from weakref import ref

from aiohttp import web

from aiosess.errors import (
    AiosessError,
    SessionError,
    SessionNotSent,
    StorageUnavailable,
    UnserializableValue,
)
from aiosess.events import Reason
from aiosess.exchange.acting import USE_SETUP, Acting
from aiosess.exchange.keys import hand_out
from aiosess.exchange.stages import Commit, Opening, moved
from aiosess.records.decide import Reply, Rules
from aiosess.records.state import Intent, SessionState, Standing
from aiosess.session import SESSION, Session, is_of
from aiosess.transports.base import Lines

if TYPE_CHECKING:
    from aiosess.exchange.manager import SessionManager

__all__ = ["Exchange"]


class Exchange(Acting):
    """One request and its response, and the session between them.

    It also stands where aiohttp_session expects the request's storage, so that
    ``aiohttp_session.get_session(request)`` and ``new_session(request)`` return our sessions.
    """

    # As declared above, for checkers that look at one class at a time.
    state: SessionState | None
    has_left: bool
    outcome: Reason
    handed: tuple[ref[web.Request], ...]
    kept_alive: tuple[web.Request, ...]

    stage: Commit = Commit.PENDING
    told: Lines = ()
    """What the client was told by the headers of ``told_on``."""
    told_on: web.StreamResponse | None = None
    ahead_of: SessionManager | None = None
    """Whose middleware is still to come: one in front of it asked for the session already."""
    finishing: asyncio.Task[None] | None = None
    """Does what a task had begun that was cancelled."""
    _is_watched: bool = False

    def open(self, request: web.Request, *, required: bool = True) -> Coroutine[Any, Any, Any]:
        """Return, once awaited, the session; see ``Holding``."""
        if self.stage is Commit.NEVER:
            # The handler failed; what a middleware outside of ours does from here on counts.
            self.stage = moved(self.stage, Commit.PENDING)
        return super().open(request, required=required)

    @property
    def is_at_its_end(self) -> bool:
        """Whether the handler has come to its end, or has failed."""
        return self.stage is not Commit.PENDING or self.has_left

    def make_way(self) -> None:
        """Leave the request to another exchange: its handler is called again.

        What else holds the session of this one may still change it.
        """
        self.handed: tuple[ref[web.Request], ...] = ()

    def session_of(self, state: SessionState) -> Session:
        """Return what is handed out of *state*."""
        return Session(state, self)

    async def new_session(self) -> Session:
        """Return an empty session with a new id; the record that there was is deleted.

        The object that was handed out before keeps what it held, for those who carry it over.
        """
        session = await self.load_session(self.request)
        held = self.state
        if held is None:
            return session
        self.state = state = held.apart()
        state.past = None
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
            state.conclude()
            self.session = None
        return session

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

    def let_go(self, _response: web.StreamResponse, /) -> bool:
        """Let the response leave where nothing is to be done; False: it takes prepare()."""
        if self.opening is Opening.UNASKED:
            self.has_left = True
            self._tell_decisions()
        return self.has_left

    def abandon(self) -> None:
        """Forget what was not kept yet: the handler failed, or the response that it prepared.

        What a cancelled task had begun to keep is finished all the same.
        """
        if self.finishing is not None:
            self.leave()
            return
        if self.state is not None and self.state.entered:
            self.manager.finish(self.withdraw(self.state.copied()))
        if self.state is not None and not self.state.is_gone:
            self.state.rollback()
        self.stage = moved(self.stage, Commit.NEVER)
        self.leave()

    def leave(self) -> None:
        """Let go of the session, now that the response is made."""
        if self.session is not None and self.state is not None:
            self.state.conclude()
        self.session, self.kept_alive = None, ()
        if not self.manager.is_told_of_headers:
            self.has_left = True
        if self.opening is not Opening.UNASKED or not self.manager.is_told_of_headers:
            self._tell_decisions()

    def _tell_decisions(self) -> None:
        if self.manager.events.is_heard:
            self.manager.events.tell_decisions(
                self.decisions(), request=self._request(), whose=self.bond
            )

    def decisions(self) -> tuple[Reason, ...]:
        """Return how the session was opened, and what became of it."""
        is_undecided = self.stage is Commit.PENDING and self.outcome is Reason.UNCHANGED
        if self.state is None or is_undecided:
            return (self.arrival,)
        failed = self.stage is Commit.BEGUN or self.stage is Commit.NEVER
        return self.arrival, Reason.FAILED if failed else self.outcome

    async def _to_its_end(self, response: web.StreamResponse, *, has_left: bool) -> None:
        rules = self.manager.rules
        rules = rules.again() if self.stage is Commit.DONE or self.is_passive else rules
        try:
            await self._commit(response, rules, has_left=has_left)
        except asyncio.CancelledError:
            # The client is gone, perhaps; what the handler did is not.
            self.finish(rules, has_left=has_left)
            raise

    def finish(self, rules: Rules, *, has_left: bool) -> None:
        """Have the commit that was interrupted done again, in a task of its own."""
        self.finishing = self.manager.finish(self._finish(rules, has_left=has_left))

    async def _finish(self, rules: Rules, *, has_left: bool) -> None:
        if self.stage is Commit.BEGUN:
            self.stage = moved(self.stage, Commit.PENDING)
        try:
            # Nobody is there any more who would be told, or answered as the outage policy says.
            if self._is_to_be_settled(has_left=has_left):
                await self.act(self._settle, rules, has_left=has_left)
            if has_left:
                self._check_told()
        except AiosessError as error:
            self._say(Reason.NOT_FINISHED, error=repr(error))

    async def _commit(self, response: web.StreamResponse, rules: Rules, *, has_left: bool) -> None:
        try:
            if self._is_to_be_settled(has_left=has_left):
                await self.act(self._settle, rules, has_left=has_left)
        except StorageUnavailable as error:
            self._lose(error, has_left=has_left)
        if has_left:
            self._check_told()
        else:
            self._tell(response)

    def _lose(self, error: StorageUnavailable, *, has_left: bool) -> None:
        """Let the response leave though the session was not kept, or raise what it gets."""
        state, outage, request = self.state, self.manager.outage, self._request()
        # Nobody is told of a logout that did not happen, or of a login.
        if state is not None and (state.is_still_to_end or state.standing is Standing.ANONYMOUS):
            outage.refuse(request, error, has_left=has_left)
        if self.handler_knows:
            self._say(Reason.WITHOUT_SESSION, error=error)
        else:
            outage.lose(request, error, has_left=has_left)
        self.outcome = Reason.FAILED

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
        return all(is_of(request.get(SESSION), state) for request in requests)

    def _stranger(self) -> object:
        """Return what somebody put into a request in the place of its session; ``None``: none."""
        places = self.handed or (self._request,)
        held = [request.get(SESSION) for each in places if (request := each()) is not None]
        return next((each for each in held if not isinstance(each, Session | None)), None)

    def _refuse_stranger(self) -> None:
        """Raise SessionError where somebody put something in the place of the session."""
        stranger = self._stranger()
        if stranger is not None:
            raise SessionError(
                f"request[SESSION] was set to a {type(stranger).__name__}, which is not kept: to "
                "put other data in, take session = await get_session(request), then "
                "session.clear() and session.update(...)"
            )

    async def _settle(self, rules: Rules, *, has_left: bool) -> None:
        """Decide and act, while no other task of the request has its turn."""
        self.stage = moved(self.stage, Commit.BEGUN)
        state = self.state
        if self.opening is Opening.UNASKED:
            self._refuse_stranger()
        elif state is not None and not state.is_gone:
            state.beyond_data()
            if self._is_held(state):
                await self._act_or_withdraw(state, rules, has_left=has_left)
            elif self._stranger() is not None:
                state.rollback()
                self._refuse_stranger()
            elif self.manager.options.unset == "destroy":
                state.intent = Intent.DESTROY
                await self._act(state, rules, has_left=has_left)
            else:
                if state.may_be_modified:
                    self.outcome = Reason.DROPPED
                state.rollback()
        if state is not None and state.entered:
            await self.withdraw(state)
        self.stage = moved(self.stage, Commit.DONE)

    async def _act_or_withdraw(self, state: SessionState, rules: Rules, *, has_left: bool) -> None:
        """Decide and act; a login that is refused for what it would keep takes no place."""
        try:
            await self._act(state, rules, has_left=has_left)
        except StorageUnavailable:
            # Perhaps it was kept all the same.
            raise
        except AiosessError:
            if state.entered:
                await self.withdraw(state)
            raise

    def _tell(self, response: web.StreamResponse) -> None:
        """Write into the headers of *response* what the client is to be told."""
        state, due = self.state, self.due
        if state is not None:
            if due is Reply.SEND and self._withholds(state):
                due = Reply.LEAVE
            self.told = self.transport.tell(response, due, state, self.told)
        self.told_on = response
        if self.opening is not Opening.UNASKED:
            self.transport.vary(response)

    def _check_told(self) -> None:
        """Raise SessionNotSent where a new session was saved whose cookie never left."""
        state = self.state
        if state is None or state.is_new or self.told_on is not None:
            return
        if state.standing is not Standing.LIVE:
            return
        if self.came is None or self.came.session_id != state.session_id:
            raise SessionNotSent(
                f"the session was saved, but the response was prepared without its cookie: "
                f"{USE_SETUP}"
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
            self._say(Reason.CHANGED_TOO_LATE, error=error)
            return
        if is_changed:
            self.manager.finish(self._keep_late())

    async def _keep_late(self) -> None:
        if self.stage is Commit.NEVER:
            self.stage = moved(self.stage, Commit.PENDING)
        try:
            await self.act(self._settle, self.manager.rules.again(), has_left=True)
        except AiosessError as error:
            self._say(Reason.CHANGED_TOO_LATE, error=error)
