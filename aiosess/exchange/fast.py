"""The fast lane: what most requests do, in fewer steps. All shortcuts for speed stand here.

Nothing is decided otherwise than ``Exchange`` would: whatever is out of the ordinary is handed to
it before anything was done. The tests of requests run on both lanes, and a differential test
compares them. A reader of the house may leave this file out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Container, Coroutine
from time import monotonic as clock
from typing import Any, Final
from weakref import ref

from aiohttp import hdrs, web
from aiohttp_session import SESSION_KEY

from aiosess.attributes import CookieOptions
from aiosess.errors import AiosessError, Conflict, StorageUnavailable
from aiosess.events import Reason
from aiosess.exchange.exchange import Exchange
from aiosess.exchange.keys import ASKING
from aiosess.exchange.stages import Commit, Opening
from aiosess.guard.retries import RetryingStorage
from aiosess.options import SessionOptions
from aiosess.privacy import forget_locals
from aiosess.records.changes import JSON, Snapshot
from aiosess.records.decide import Reply
from aiosess.records.format import encode_usual, instants_of, start_of, version_of
from aiosess.records.merge import Original
from aiosess.records.repository import SessionRepository
from aiosess.records.state import Past, SessionState, Standing
from aiosess.records.usual import Usual, usual_of
from aiosess.session import SESSION, Session
from aiosess.spelling import called
from aiosess.storages import Stored, Version
from aiosess.transports.base import SignedId
from aiosess.transports.cookie import CookieTransport, is_secure, vary_by_cookie

__all__ = ["FastExchange", "Shortcuts", "UntoldFastExchange"]

# On CPython 3.11, asking an enum for a member takes a call in Python; these do not.
_UNASKED: Final = Opening.UNASKED
_ASKED: Final = Opening.ASKED
_OPEN: Final = Opening.OPEN
_PENDING: Final = Commit.PENDING
_BEGUN: Final = Commit.BEGUN
_DONE: Final = Commit.DONE
_LEAVE: Final = Reply.LEAVE
_SEND: Final = Reply.SEND
_CONCLUDED: Final = Past.CONCLUDED
_LIVE: Final = Standing.LIVE
_REPLACED: Final = Reason.REPLACED
_TOUCHED: Final = Reason.TOUCHED
_COOKIE: Final = hdrs.COOKIE
_NOTHING: Final[dict[str, Original]] = {}


class Shortcuts:
    """What the fast lane asks of an application's sessions, looked up once."""

    def __init__(
        self,
        options: SessionOptions,
        repository: SessionRepository,
        guard: RetryingStorage | None,
        transport: CookieTransport,
        *,
        cookies: tuple[CookieOptions, CookieOptions],
    ) -> None:
        self.repository = repository
        self.load: Callable[[str], Coroutine[Any, Any, Stored | None]]
        self.replace: Callable[..., Coroutine[Any, Any, Version]]
        self.guard = guard
        self._choose(is_well=True)
        if guard is not None:
            guard.breaker.on_change = lambda is_well: self._choose(is_well=is_well)
        bonds = repository.bonds
        self.usual: Usual = usual_of(
            repository.migration, None if bonds is None else bonds.looked.is_due
        )
        self.sizes: range = range(1, repository.writing.max_size + 1)
        self.encoded: Callable[[SessionState], bytes] = repository.writing.encoded
        self.is_touching: bool = repository.touching is not None
        self.idle: float = repository.lifetime.idle
        self.is_touch_due: Callable[[str], bool] = repository.lifetime.touched.is_due
        self.touched: Callable[[str], None] = repository.lifetime.touched.add
        self.now: Callable[[], float] = repository.lifetime.now
        self.verified: dict[str, SignedId] = transport.signer.verified
        self.proxy: bool | None = transport.proxy
        self.cookie_starts: str = f"{transport.name}="
        self.queued: Container[str] = repository.queued
        self.renew_on: frozenset[str] = options.plan.renew_on
        self.cookies = cookies

    def _choose(self, *, is_well: bool) -> None:
        """Ask the storage past its guard, while all is well and the guard would only hand on."""
        storage, straight = self.repository.storage, self.guard and self.guard.straight
        if is_well and straight is not None:
            storage = straight
        self.load, self.replace = storage.load, storage.replace

    def failed(self, operation: str, session_id: str, error: StorageUnavailable) -> None:
        """Let the guard know of a call past it that failed."""
        if self.guard is not None and error.operation is None:
            self.guard.failed_straight(operation, session_id, error)

    @staticmethod
    def fit(options: SessionOptions) -> bool:
        """Ask whether most sessions of such an application can take the fast lane."""
        cookie = options.cookie
        return (
            isinstance(cookie, CookieOptions)
            and cookie.path == "/"
            and cookie.expires is None
            and options.absolute_timeout is None
            and not options.plan.rules.acts_on_reads
            and options.renew_every is None
        )


class FastExchange(Exchange):
    """An exchange that knows the shortest way for a session of which only data are used."""

    # As declared above, for checkers that look at one class at a time.
    opening: Opening
    stage: Commit
    is_busy: bool
    has_left: bool
    is_secure: bool
    came: SignedId | None
    state: SessionState | None
    handed: tuple[ref[web.Request], ...]
    arrival: Reason
    outcome: Reason
    told_on: web.StreamResponse | None

    _request: Any
    """Not as above: that the request may be gone is seen by a TypeError, in fewer steps."""

    def open(self, request: web.Request, *, required: bool = True) -> Coroutine[Any, Any, Any]:
        """Return, once awaited, the session; see ``Holding``."""
        if (
            self.opening is _UNASKED
            and self.stage is _PENDING
            and not self.has_left
            and self._request() is request
        ):
            self.opening = _ASKED
            return self._open_fast(request, required=required)
        return super().open(request, required=required)

    @called(ASKING)
    async def _open_fast(self, request: web.Request, *, required: bool) -> Session | None:
        short = self.manager.shortcuts
        # Most requests bring one such cookie, not for the first time.
        before, _, after = request.headers.get(_COOKIE, "").partition(short.cookie_starts)
        signed = short.verified.get(after.partition(";")[0])
        if signed is None or (before and before.removesuffix("; ") is before):
            del before, after
            return await self._open(request, required=required)
        session_id = signed.session_id
        if short.is_touching and short.is_touch_due(session_id):
            # Error trackers send what is left in this frame, should that fail.
            del before, after, session_id
            return await self._open(request, required=required)
        # In the first case, what request.secure asks.
        self.is_secure = is_tls = (
            request.scheme == "https"
            if short.proxy is None
            else is_secure(request, proxy=short.proxy)
        )
        cookie = short.cookies[is_tls]
        self.came = signed
        self.is_busy = True
        began = clock()
        try:
            stored = await short.load(session_id)
            state = None if stored is None else short.usual(session_id, stored, cookie, short.now())
            if state is None:
                spend, spent = self.manager.budget.spend_rest, clock() - began
                state = await spend(spent, self._unusual, request, session_id, stored, cookie)
            self.state = state
            self.opening = _OPEN
        except StorageUnavailable as error:
            short.failed("load", session_id, error)
            forget_locals(error)
            del before, after, session_id
            await self.do_without(request, error, required=required)
            self.opening = _OPEN
            return None if self.state is None else self._hand_out(request, self.state)
        except AiosessError as error:
            forget_locals(error)
            del before, after, session_id
            raise
        finally:
            if self.waiters is None:
                self.is_busy = False
            else:
                self.pass_on()
        self.session = request[SESSION] = request[SESSION_KEY] = session = Session(state, self)
        self.handed = (self._request,)
        return session

    async def _unusual(
        self, request: web.Request, session_id: str, stored: Stored | None, cookie: CookieOptions
    ) -> SessionState:
        """Return the session to which *stored* leads, else that of another cookie, or a new one."""
        found = await self.manager.shortcuts.repository.read(session_id, stored, cookie)
        if not isinstance(found, SessionState):
            found = await self._first_kept(request, cookie, but=self.came, refused=found)
        self.arrival = self._arrival(request, found)
        state = await self._or_fresh(found, cookie)
        state.only_data = not (
            state.is_new
            or state.standing is not _LIVE
            or state.must_be_written
            or state.cookie.own
            or state.former_id
            or state.renewed_at
            or (state.unknown and state.unknown != state.beginning)
        )
        return state

    def decisions(self) -> tuple[Reason, ...]:
        """Return how the session was opened, and what became of it."""
        if self.arrival is Reason.NOT_ASKED and self.state is not None:
            # What the shortest way does not write down.
            self.arrival = Reason.OPENED
        return super().decisions()

    def end(self, response: web.StreamResponse) -> Coroutine[Any, Any, None] | None:
        """Begin to commit, and return what is still to be awaited, where anything is."""
        state, session, short = self.state, self.session, self.manager.shortcuts
        if state is None or session is None or not state.only_data or self.has_left:
            return self.commit(response)
        try:
            # TypeError where the request is gone.
            if self._request()[SESSION] is not session:
                return self.commit(response)
        except (KeyError, TypeError):
            return self.commit(response)
        if state.originals:
            is_alone = len(self.handed) == 1 and not self.is_busy and self.waiters is None
            is_next = state.session_id not in short.queued
            if is_alone and is_next and state.originals.keys().isdisjoint(short.renew_on):
                return self._keep_data(state, response)
            return self.commit(response)
        if short.is_touch_due(state.session_id):
            return self.commit(response)
        self.stage = _DONE
        self.session = None
        state.past = _CONCLUDED
        self.told_on = response
        return None

    async def _keep_data(self, state: SessionState, response: web.StreamResponse) -> None:
        """Write the data that were changed, where nothing else was done."""
        short = self.manager.shortcuts
        self.stage = _BEGUN
        payload, changed, is_kept, began = b"", _NOTHING, True, clock()
        self.is_busy = True
        try:
            changed = JSON.changed(state.originals, state.data)
            if changed:
                encoded = encode_usual(
                    state.data,
                    state.cookie.base.frame,
                    state.instants or self._instants(state),
                    start_of(state.session_id),
                )
                payload = encoded if len(encoded) in short.sizes else short.encoded(state)
                version = await short.replace(
                    state.session_id, payload, short.idle, expected=state.version
                )
                state.kept(version, changed)
                short.touched(state.session_id)
                self.outcome = _REPLACED
            elif short.is_touch_due(state.session_id):
                self.outcome = _TOUCHED
                touch = short.repository.touch(state, is_renewal_told=False)
                is_kept = await self._if_possible(touch)
            self.stage = _DONE
        except (Conflict, StorageUnavailable, asyncio.CancelledError) as error:
            snapshot = Snapshot(changed, {})
            is_kept = await self._recover(error, state, payload, snapshot, since=began)
            if self.stage is not _DONE:
                changed = _NOTHING
        finally:
            if self.waiters is None:
                self.is_busy = False
            else:
                self.pass_on()
            self.session = None
            state.past = _CONCLUDED
        if not is_kept:
            self._drop_changes()
        elif changed and state.cookie.base.max_age is not None:
            self.due = _SEND if state.standing is _LIVE else _LEAVE
        if self.due is not _LEAVE:
            self._tell(response)
        self.told_on = response

    @staticmethod
    def _instants(state: SessionState) -> bytes:
        version = version_of(state.unknown)
        return instants_of(state.created_at, state.authenticated_at, version, state.bond)

    async def _recover(
        self,
        error: BaseException,
        state: SessionState,
        payload: bytes,
        snapshot: Snapshot,
        *,
        since: float,
    ) -> bool:
        """Go on after *error* as the whole way does; False where the record is gone."""
        try:
            if isinstance(error, Conflict):
                resolve = self.manager.shortcuts.repository.resolve
                spent, spend = clock() - since, self.manager.budget.spend_rest
                is_kept = await spend(spent, resolve, state, error, payload, snapshot)
                self.outcome = _REPLACED
                self.stage = _DONE
                return is_kept
            if payload:
                self.manager.shortcuts.repository.writing.doubt(state, payload)
            raise error
        except StorageUnavailable as outage:
            self.manager.shortcuts.failed("replace", state.session_id, outage)
            self._lose(outage, has_left=False)
            return True
        except asyncio.CancelledError:
            self.finish(self.manager.rules, has_left=False)
            raise

    def let_go(self, response: web.StreamResponse, /) -> bool:
        """Let *response* leave as it is, where nothing is to be done; False: it takes prepare()."""
        if not self.opening:
            self.has_left = True
            return True
        state = self.state
        if (
            self.stage is not _DONE
            or self.told_on is not response
            or state is None
            or not state.only_data
            or state.originals
        ):
            return super().let_go(response)
        # A FileResponse, or a middleware outside ours, may have written a Vary of its own.
        vary_by_cookie(response)
        self.has_left = True
        return True


class UntoldFastExchange(FastExchange):
    """A fast one that nobody tells of headers: the response leaves once the session is kept."""

    def end(self, response: web.StreamResponse) -> Coroutine[Any, Any, None] | None:
        """Begin to commit, and return what is still to be awaited, where anything is."""
        if response.prepared:
            return self.commit(response)
        rest = super().end(response)
        if rest is not None:
            return self._left_after(rest, response)
        self._left(response)
        return None

    async def _left_after(
        self, rest: Coroutine[Any, Any, None], response: web.StreamResponse
    ) -> None:
        await rest
        self._left(response)

    def _left(self, response: web.StreamResponse) -> None:
        self.has_left = True
        vary_by_cookie(response)
