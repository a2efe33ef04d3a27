"""The sessions of one application: its options, made ready to serve each request."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, Final, Protocol, TypeAlias
from weakref import WeakKeyDictionary, WeakValueDictionary, ref

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp_session import AbstractStorage

from aiosess.errors import OptionsError
from aiosess.events import Events, Reason
from aiosess.exchange.exchange import Exchange
from aiosess.exchange.fast import FastExchange, Shortcuts, UntoldFastExchange
from aiosess.exchange.keys import NoSession, silence
from aiosess.exchange.outage import AsOptionsSay, OutagePolicy
from aiosess.exchange.watching import Watcher
from aiosess.guard.breaker import Breaker, NodeHealth
from aiosess.guard.budget import Budget
from aiosess.guard.observed import ObservedStorage
from aiosess.guard.retries import RetryingStorage, guard_of, guarded_by
from aiosess.interop.repository import BorrowedRepository
from aiosess.interop.session import BorrowedSession
from aiosess.interop.storage import BorrowedStorage
from aiosess.interop.transport import BorrowedTransport
from aiosess.options import Plan, SessionOptions
from aiosess.records.decide import Rules
from aiosess.records.identity import complaint_of
from aiosess.records.repository import Repository, SessionRepository
from aiosess.records.state import SessionState
from aiosess.records.typed import SessionKey
from aiosess.request_key import RequestKey
from aiosess.session import Session
from aiosess.storages import Closeable, Storage
from aiosess.storages.base import as_notifying
from aiosess.timeouts import steady_of
from aiosess.transports.base import Transport
from aiosess.transports.cookie import CookieTransport
from aiosess.transports.signing import Signer

__all__ = [
    "EXCHANGE",
    "OURS",
    "SessionManager",
    "breaker_of",
    "lane_of",
    "managers_in",
    "repository_of",
]

EXCHANGE: Final = RequestKey[Exchange | NoSession]("aiosess.exchange")
"""Where a request keeps its exchange, which stands under aiohttp_session's key as well."""


# Which options select a route, in the applications that have started.
_CLAIMS: Final[WeakKeyDictionary[web.AbstractRoute, dict[str, SessionManager]]] = (
    WeakKeyDictionary()
)


class _Slot(Protocol):
    """What has the manager of a middleware, at the latest when the application has started."""

    manager: SessionManager


OURS: Final[WeakKeyDictionary[Any, ref[_Slot]]] = WeakKeyDictionary()
"""The session middlewares of all applications, and where each finds its manager."""


def managers_in(app: web.Application) -> tuple[SessionManager, ...]:
    """Return the managers whose middlewares are installed in *app* itself, which has started."""
    slots = [OURS[each]() for each in app.middlewares if each in OURS]
    return tuple(slot.manager for slot in slots if slot is not None)


def lane_of(options: SessionOptions, *, is_told: bool) -> type[Exchange]:
    """Return the kind of exchange that an application's requests get; chosen at its start.

    *is_told*: somebody tells it before headers leave.
    """
    if not Shortcuts.fit(options):
        return Exchange
    return FastExchange if is_told else UntoldFastExchange


_Make: TypeAlias = "Callable[[SessionManager, web.Request], Exchange]"
"""Makes the exchange of a request."""


def breaker_of(options: SessionOptions, events: Events) -> Breaker:
    """Return the breaker that stands before the storage of *options*."""
    clock = options.clock
    return Breaker(options.breaker, events, clock=clock, steady=steady_of(clock))


def repository_of(
    options: SessionOptions, storage: Storage, breaker: Breaker, events: Events
) -> tuple[RetryingStorage | None, SessionRepository]:
    """Return the guard before *storage*, where it takes one, and the sessions that are kept there.

    *storage* is that of *options*.
    """
    if options.on_storage_call is not None:
        storage = ObservedStorage(storage, options.on_storage_call)
    guard = guard_of(storage, options.plan.retry_policy, breaker)
    kept, records = guarded_by(guard, storage), options.plan.records
    return guard, SessionRepository(kept, records, clock=options.clock, events=events)


class SessionManager:
    """The sessions of one application."""

    repository: Repository
    """Keeps them; of a storage of aiohttp-session there is one for each request."""

    transport: Transport
    """Carries their ids; of a storage of aiohttp-session there is one for each request."""

    watcher: Watcher | None = None
    """Tells what is open when its session ends; none does for a storage of aiohttp-session."""

    shortcuts: Shortcuts
    """For the fast lane, where that was chosen."""

    exchange: _Make
    """Makes the exchange of a request."""

    def __init__(
        self,
        options: SessionOptions,
        *,
        transport: Transport | None = None,
        outage: OutagePolicy | None = None,
    ) -> None:
        self.options = options
        self.events: Events = Events(options.on_event, options.clock)
        self.outage: OutagePolicy = outage or AsOptionsSay(
            options.on_unavailable, self.events, finds_none=options.retries is None
        )
        self.breaker: Breaker = breaker_of(options, self.events)
        self.budget: Budget = options.plan.retry_policy.budget_of_an_act()
        self.plan: Plan = options.plan
        self.rules: Rules = options.plan.rules
        self.is_eager: bool = options.plan.is_eager
        self.decided: dict[web.AbstractRoute, bool] = options.plan.routes.decided
        self.is_told_of_headers: bool = False
        """Whether the signal ``on_response_prepare`` tells us before headers leave."""
        self.may_come_second: bool = True
        """Whether a middleware in front of ours may have asked for the session already."""
        self._keys: WeakValueDictionary[str, SessionKey[Any]] = WeakValueDictionary()
        # By what all clones of a request share.
        self._shared: WeakKeyDictionary[AbstractStreamWriter, Exchange] = WeakKeyDictionary()
        self._routes_checked = self._warnings_silenced = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._guard: RetryingStorage | None = None
        # Of those who are not told before headers leave, and of those who are; None: no choice.
        self._lanes: tuple[type[Exchange], type[Exchange]] | None = None
        if isinstance(options.storage, AbstractStorage):
            self._borrow(options.storage)
        elif options.plan.signer is not None:
            self._own(options, options.storage, options.plan.signer, transport)

    def _own(
        self,
        options: SessionOptions,
        storage: Storage,
        signer: Signer,
        transport: Transport | None,
    ) -> None:
        self._guard, repository = repository_of(options, storage, self.breaker, self.events)
        self.repository = repository
        self.watcher = watcher = Watcher(
            repository.looking,
            self.events,
            every=options.plan.watch_every,
            storage=as_notifying(repository.storage),
        )
        repository.on_end = watcher.tell
        options.plan.records.seat.serve(watcher)
        if transport is not None:
            self.transport = transport
            self.exchange = Exchange
            return
        self.transport = cookie = CookieTransport(
            options.name, signer, options.cookie, proxy=options.proxy, clock=options.clock
        )
        if cookie.resolved is not None:
            self.shortcuts = Shortcuts(
                options, repository, self._guard, cookie, cookies=cookie.resolved
            )
        self._lanes = lane_of(options, is_told=False), lane_of(options, is_told=True)
        self.exchange = self._chosen(is_told=False)

    def _borrow(self, storage: AbstractStorage) -> None:
        policy = self.options.plan.retry_policy
        borrowed = BorrowedStorage(
            storage, policy, self.events, breaker=self.breaker, watch=self.options.on_storage_call
        )
        make = partial(BorrowedExchange, borrowed=borrowed)
        self.exchange = self._or_passive(make, make)

    def _chosen(self, *, is_told: bool) -> _Make:
        """Return what makes the exchanges of requests from here on."""
        lane = Exchange if self.events.is_heard or self._lanes is None else self._lanes[is_told]
        return self._or_passive(lane, Exchange)

    def _or_passive(self, usual: _Make, passive: _Make) -> _Make:
        """Return what makes a *usual* exchange, or a *passive* one where the options say so."""
        if self.plan.passive is None:
            return usual

        def make(manager: SessionManager, request: web.Request) -> Exchange:
            if not manager.is_passive(request):
                return usual(manager, request)
            exchange = passive(manager, request)
            exchange.is_passive = True
            return exchange

        return make

    def is_passive(self, request: web.Request) -> bool:
        """Ask whether the options say of the route of *request* that it is no activity."""
        passive = self.plan.passive
        return passive is not None and passive.selects(request)

    def be_told_of_headers(self) -> None:
        """From here on, the signal ``on_response_prepare`` tells us before headers leave."""
        self.is_told_of_headers = True
        # The level of the log may have been set since.
        self.events.ask_who_hears()
        if self._lanes is not None:
            self.exchange = self._chosen(is_told=True)

    def check_routes(self, app: web.Application) -> None:
        """Raise OptionsError for a route in the options that *app* does not have."""
        self.options.plan.routes.check(app)
        if self.plan.passive is not None:
            self.plan.passive.check(app)
        if self.options.plan.routes.is_empty:
            self.events.tell_first(Reason.NO_ROUTES)
        self._routes_checked = True

    def claim_routes(self, app: web.Application) -> None:
        """Raise OptionsError for a route of *app* that other options select as well."""
        claims = {
            (route, method): self
            for route in app.router.routes()
            for method in self.options.plan.routes.methods_of(route)
        }
        for claim in claims:
            other = _CLAIMS.get(claim[0], {}).get(claim[1])
            if other is not None and other.options is not self.options:
                raise OptionsError(_twice(claim[0]))
        for route, method in claims:
            _CLAIMS.setdefault(route, {})[method] = self

    def check_alone(self, other: SessionManager, request: web.Request) -> None:
        """Raise OptionsError where the route of *request* has a session by *other* options too.

        Where both were installed by ``setup``, that was looked at when they started.
        """
        if self.options is other.options or (self.is_told_of_headers and other.is_told_of_headers):
            return
        route = request.match_info.route
        if self.options.plan.routes.methods_of(route) and self.selects(request):
            raise OptionsError(_twice(route))

    def selects(self, request: web.Request) -> bool:
        """Return whether the route of *request* gets a session."""
        if not self._warnings_silenced:
            silence(request)
            self._warnings_silenced = True
        if not self._routes_checked:
            self.check_routes(request.app)
        return self.options.plan.routes.selects(request)

    def declare(self, key: SessionKey[Any]) -> None:
        """Take note that *key* is used; OptionsError where its name has another type already."""
        known = self._keys.setdefault(key.name, key)
        if known != key:
            raise OptionsError(
                f"two SessionKeys are called {key.name!r}, and are of different types: {known!r} "
                f"and {key!r}; give one of them another name"
            )

    def share_exchanges(self) -> None:
        """From here on let an exchange be found by each clone of its request."""
        make = self.exchange

        def shared(manager: SessionManager, request: web.Request) -> Exchange:
            exchange = self._shared[request.writer] = make(manager, request)
            return exchange

        self.exchange = shared

    def exchange_of_clone(self, request: web.Request) -> Exchange | None:
        """Return the exchange of a request of which *request* is a clone, or that is one of it."""
        return self._shared.get(request.writer)

    async def new_id(self, request: web.Request) -> str:
        """Return a new session id from ``genid``."""
        session_id = self.options.genid(request)
        if inspect.isawaitable(session_id):
            session_id = await session_id
        if not isinstance(session_id, str) or not session_id:
            # Not the value, which may be an id all the same.
            given = "''" if session_id == "" else type(session_id).__name__
            raise OptionsError(f"genid returned {given}: it must return a str that is not empty")
        complaint = complaint_of(session_id)
        if complaint is not None:
            # Not the id itself, which is secret.
            raise OptionsError(f"genid returned a str {complaint}")
        return session_id

    def finish(self, act: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have *act* done in a task of its own, which nobody cancels with a request."""
        task = asyncio.get_running_loop().create_task(act)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def health(self) -> tuple[NodeHealth, ...]:
        """Return how the nodes of the back-end are; those that are not are asked, where due."""
        if self._guard is not None:
            await self._guard.probe()
        return self.breaker.health()

    async def stop_watching(self) -> None:
        """Close what is open beside a request, and watch no session any more."""
        if self.watcher is not None:
            await self.watcher.close()

    async def close(self) -> None:
        """Wait for what is under way, then close the storage's own connections."""
        await self.stop_watching()
        while self._tasks:
            await asyncio.wait(self._tasks)
        for claims in _CLAIMS.values():
            for method in [method for method, claimed in claims.items() if claimed is self]:
                del claims[method]
        storage = self.options.storage
        if isinstance(storage, Closeable) and not isinstance(storage, AbstractStorage):
            await storage.close()


def _twice(route: web.AbstractRoute) -> str:
    where = route.resource.canonical if route.resource is not None else route.name
    return (
        f"{where!r} would get two sessions, by two SessionOptions: give one of them "
        "for_routes=[...], or the outer one exclude=[...], or install the same options"
    )


class BorrowedExchange(Exchange):
    """An exchange whose session a storage keeps that was made for aiohttp-session."""

    def __init__(
        self, manager: SessionManager, request: web.Request, *, borrowed: BorrowedStorage
    ) -> None:
        super().__init__(manager, request)
        self._borrowed = BorrowedRepository(borrowed, request, clock=manager.options.clock)
        self._sent_by = BorrowedTransport(borrowed, self._borrowed)
        self._storage = borrowed.given

    def __getattr__(self, name: str) -> Any:
        # An application may ask its storage, which it finds in the request, for more.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._storage, name)

    @property
    def repository(self) -> Repository:
        """The keeper of the session."""
        return self._borrowed

    @property
    def transport(self) -> Transport:
        """How its identity travels."""
        return self._sent_by

    def session_of(self, state: SessionState) -> Session:
        """Return what is handed out of *state*."""
        return BorrowedSession(state, self, self._borrowed.loaded)
