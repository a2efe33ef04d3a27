"""Everything that can be configured, put together, checked and frozen."""

from __future__ import annotations

import inspect
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal, TypeAlias, cast

from aiohttp import web
from aiohttp_session import AbstractStorage

from aiosess.attributes import CookieOptions, check_name
from aiosess.errors import OptionsError
from aiosess.events import Events, Listener, Reason
from aiosess.guard.breaker import BreakerOptions
from aiosess.guard.observed import Watch
from aiosess.guard.retries import RetryPolicy, no_wait
from aiosess.outages import OnUnavailable, check_on_unavailable
from aiosess.records.decide import Rules
from aiosess.records.merge import Merge
from aiosess.records.migration import MIGRATES, Migrate, Migration
from aiosess.records.repository import RecordOptions
from aiosess.records.typed import SessionKey
from aiosess.routes import RouteEntry, RouteSelector
from aiosess.spelling import with_hints
from aiosess.storages import MemoryStorage, Storage
from aiosess.timeouts import DAY, Duration, Timeouts, seconds
from aiosess.transports.cookie import CookieFactory
from aiosess.transports.signing import Secret, Signer

__all__ = ["IdFactory", "Plan", "SessionOptions", "random_id"]

IdFactory: TypeAlias = Callable[[web.Request], str | Awaitable[str]]

# A touch this early costs the busiest session nothing and the idle one a twentieth of its time.
_TOUCH_AFTER: Final = "5%"
# So many days browsers keep a cookie (RFC 6265bis, section 5.5).
_LONGEST: Final = 400
# What a storage of aiohttp-session decides for itself, or cannot do.
_NOT_BORROWED: Final = frozenset(
    {
        *("name", "cookie", "genid", "idle_timeout", "absolute_timeout"),
        *("touch_after", "merge", "whole", "max_record_size", "version", "migrate"),
        *("renew_grace", "renew_every", "on_reuse", "watch_every"),
    }
)


# What others call an option.
_ELSEWHERE: Final = {
    "store": "storage=...",
    "ttl": "idle_timeout=...",
    "key": "name=...",
    "maxAge": "cookie=CookieOptions(max_age=...), in seconds",
    **{
        name: f"cookie=CookieOptions({name}=...)"
        for name in (each.name for each in fields(CookieOptions))
    },
    "httpOnly": "cookie=CookieOptions(httponly=...)",
    "sameSite": "cookie=CookieOptions(samesite=...)",
}


def random_id(_request: web.Request) -> str:
    """Return 24 random bytes, URL-safe: the ``genid`` of those who do not give one."""
    return secrets.token_urlsafe(24)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What options amount to, built from them and so checked with them.

    *signer* is ``None`` for a storage of aiohttp-session, whose cookies are its own.
    """

    signer: Signer | None
    routes: RouteSelector
    retry_policy: RetryPolicy
    records: RecordOptions
    rules: Rules
    passive: RouteSelector | None
    renew_on: frozenset[str]
    renew_on_in_order: tuple[str, ...]
    renew_every: float | None
    watch_every: float
    is_eager: bool


@with_hints(_ELSEWHERE)
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionOptions:
    """What an application wants of its sessions; OptionsError where it makes no sense.

    Each error names the value and the way out. Durations are seconds or ``timedelta``. The
    names are those of express-session and nestjs-session where they have one.

    - ``secret``: signs the cookie; a ``str``, ``bytes``, or several: the first signs, all are
      accepted, and a cookie that an older one signed is signed anew on the next response.
      TypeError without one, but for a storage of aiohttp-session: its cookies are its own.
    - ``storage``: where the records are kept; also any storage that was made for
      aiohttp-session (an ``AbstractStorage``), which does less.
    - ``name``: of the cookie.
    - ``cookie``: its attributes, or a function of the request, sync or async, that returns them.
    - ``genid``: a function of the request, sync or async, that returns a new session id: 1,000
      bytes at the most, without control characters. An id that is taken is refused.
    - ``proxy``: ``True`` believes ``X-Forwarded-Proto``, ``False`` only a TLS transport, ``None``
      asks ``request.secure``.
    - ``resave``: write the record though nothing changed.
    - ``rolling``: send the cookie with each response that used its session.
    - ``save_uninitialized``: keep a new session though nothing was put in.
    - ``unset``: what ``del request[SESSION]`` means: ``"keep"`` the record as it was, or
      ``"destroy"`` it.
    - ``idle_timeout``: how long an unused record lives; by default the cookie's ``max_age``, or
      24 hours where it has none, be it for one session.
    - ``absolute_timeout``: the end of a session however busy it is.
    - ``for_routes``, ``exclude``: which routes get a session; see RouteSelector.
    - ``passive``: the routes whose requests are no activity, such as those that a page polls: a
      session does not live longer by them, and no cookie is sent. What they change is kept.
    - ``retries``: how many more tries when the storage does not answer, then ``on_unavailable``.
      ``None``: one try; find_session() returns ``None`` then.
    - ``retries_strategy``: the seconds before each retry; called with 1, 2, ...; needs ``retries``.
      It is tried with 1 when the options are built.
    - ``timeout``: for one call of the storage.
    - ``budget``: for all that one act of a request asks of the storage: the load, the commit, an
      explicit verb, with retries, waits and merges. ``None``: what one call may take with all its
      retries and waits.
    - ``breaker``: when calls to a node that fails are given up at once, and how it is asked
      whether it is well again; ``None``: never.
    - ``on_unavailable``: what a request gets that needs its session while the storage is away, or
      whose session cannot be kept. An HTTP error, as a class or made; 503 gets a ``Retry-After``.
      Or ``"anonymous"``, an empty session that is never kept; or a function of request and
      Outage that returns one of these.
    - ``touch_after``: a record that was touched more recently is not touched again; a duration,
      or a share of the idle timeout such as ``"5%"``. A session may end that much too early.
    - ``merge``: who wins when two requests changed the same value to different things: ``"mine"``
      (the later one), ``"theirs"``, ``"raise"``, or a function of path, base, mine and theirs.
      The path is a tuple of keys. Changes to different keys of a dict, and additions to one
      list, are all kept and no conflict; two equal changes are one.
    - ``whole``: the top-level keys whose dict or list is one value, such as an address: one side's
      is kept as it stands, and nothing inside is merged. Those in ``renew_on`` always are.
    - ``max_record_size``: in bytes; a write of more raises RecordTooLarge, and what was kept stays.
      A record that is larger already may be read, and written where its data have not grown.
    - ``version``: of the data that the application keeps: a whole number, from 1, that is raised
      with each change after which older data are to be brought up. It is kept with each record.
    - ``migrate``: a function of the data of an older record and its version, 0 where it has none,
      which returns the data as they are now. ``None`` from it: the session starts anew. What comes
      of it is kept with the next write; a newer record is read as it is, and stays a newer one.
    - ``renew_grace``: how long an old id is of use. After ``rotate_id()`` it leads to the session.
      After ``renew_id()`` it shows what was before; the time counts from the new id's first use.
    - ``renew_every``: how often the id is rotated by itself; ``None``: never.
    - ``on_reuse``: an id that was rotated away, and is past its grace, is refused; with ``"end"``
      the session to which it led ends as well. A browser restored from a backup does that, too.
    - ``renew_on``: the keys that say who is logged in; the id is renewed when one of them is
      given another value, which is a login. A change from one dict or list to another renews the
      id alone; ``None``, ``False`` and what is empty are a logout. By default the key of
      aiohttp-security.
    - ``watch_every``: how often a session is looked at while anything watches it by
      ``session.watch(ws)`` or ``session.ended()``.
    - ``on_event``: a function that is told what happened and why, as a SessionEvent. The requests
      of an application that has one do without the fast lane.
    - ``on_storage_call``: a function that is told how each call of the storage ended, as a
      StorageCall, in the task of the request: for traces and metrics.
    - ``clock``: returns the Unix time; for tests, which can then move it. Spans of time go by it
      too; without one of your own they go by ``time.monotonic``, which nobody sets.
    - ``load``: ``"lazy"`` when the handler asks, ``"eager"`` before it runs; ``None``: eager
      when ``retries`` is set.
    """

    secret: Secret | Sequence[Secret] | None = field(default=None, repr=False)
    storage: Storage | AbstractStorage = field(default_factory=MemoryStorage)
    name: str = "sid"
    cookie: CookieOptions | CookieFactory = field(default_factory=CookieOptions)
    genid: IdFactory = random_id
    proxy: bool | None = None
    resave: bool = False
    rolling: bool = False
    save_uninitialized: bool = False
    unset: Literal["keep", "destroy"] = "keep"
    idle_timeout: Duration | None = None
    absolute_timeout: Duration | None = None
    for_routes: Iterable[RouteEntry] | None = None
    exclude: Iterable[RouteEntry] = ()
    passive: Iterable[RouteEntry] = ()
    retries: int | None = None
    retries_strategy: Callable[[int], Duration] = no_wait
    timeout: Duration = 1.0
    budget: Duration | None = None
    breaker: BreakerOptions | None = field(default_factory=BreakerOptions)
    on_unavailable: OnUnavailable = web.HTTPInternalServerError
    touch_after: Duration | str = _TOUCH_AFTER
    merge: Merge = "mine"
    whole: Collection[str | SessionKey[Any]] = ()
    max_record_size: int = 1_000_000
    version: int | None = None
    migrate: Migrate | None = None
    renew_grace: Duration = 10.0
    renew_every: Duration | None = None
    on_reuse: Literal["refuse", "end"] = "refuse"
    renew_on: Collection[str | SessionKey[Any]] = ("AIOHTTP_SECURITY",)
    watch_every: Duration = 15.0
    load: Literal["lazy", "eager"] | None = None
    on_event: Listener | None = None
    on_storage_call: Watch | None = None
    clock: Callable[[], float] = field(default=time.time, repr=False)

    plan: Plan = field(init=False, repr=False, compare=False)
    """What the options amount to."""

    def __post_init__(self) -> None:
        self._keep_iterators()
        is_borrowed = isinstance(self.storage, AbstractStorage)
        signer = None if is_borrowed else self._built_signer()
        self._check(is_borrowed=is_borrowed)
        object.__setattr__(self, "plan", self._built_plan(signer, is_borrowed=is_borrowed))
        max_age = self.cookie.max_age if isinstance(self.cookie, CookieOptions) else None
        if max_age is not None and seconds(max_age, name="cookie max_age") > _LONGEST * DAY:
            Events().tell(
                Reason.LONG_MAX_AGE, max_age=max_age, days=round(seconds(max_age, name="") / DAY)
            )

    def _keep_iterators(self) -> None:
        for option in ("for_routes", "exclude", "passive", "renew_on", "whole"):
            given = getattr(self, option)
            if isinstance(given, Iterator):
                # Other options may be made of these by replace(), and take it as it was given.
                object.__setattr__(self, option, tuple(cast("Iterator[object]", given)))

    def _check(self, *, is_borrowed: bool) -> None:
        """Raise OptionsError for what makes no sense and would not show while the plan is built."""
        _check_storage(self.storage)
        if is_borrowed:
            self._check_borrowed()
        _check_cookie(self.cookie)
        check_name(self.name, self.cookie if isinstance(self.cookie, CookieOptions) else None)
        _check_callable(self.genid, "genid", "takes the request and returns a str")
        check_on_unavailable(self.on_unavailable)
        if not isinstance(self.breaker, BreakerOptions | None):
            raise OptionsError(f"breaker={self.breaker!r} must be BreakerOptions(...) or None")
        if self.on_event is not None:
            _check_plain(self.on_event, "on_event", "takes a SessionEvent")
        if self.on_storage_call is not None:
            _check_plain(self.on_storage_call, "on_storage_call", "takes a StorageCall")
        _check_plain(self.clock, "clock", "returns the Unix time")
        for option in ("resave", "rolling", "save_uninitialized"):
            _check_one_of(getattr(self, option), option, (True, False))
        _check_one_of(self.proxy, "proxy", (True, False, None))
        _check_one_of(self.unset, "unset", ("keep", "destroy"))
        _check_one_of(self.load, "load", ("lazy", "eager", None))
        _check_one_of(self.on_reuse, "on_reuse", ("refuse", "end"))
        if callable(self.merge):
            _check_plain(self.merge, "merge", "returns the value that is kept")
        else:
            _check_one_of(self.merge, "merge", ("mine", "theirs", "raise"), " or a function")

    def _built_plan(self, signer: Signer | None, *, is_borrowed: bool) -> Plan:
        in_order = _checked_keys(self.renew_on, "renew_on")
        renew_on = frozenset(in_order)
        # Half of one login and half of another would be somebody else's rights.
        whole = renew_on.union(_checked_keys(self.whole, "whole"))
        every = self.renew_every
        renew_every = None if every is None else seconds(every, name="renew_every")
        return Plan(
            signer=signer,
            routes=RouteSelector(self.for_routes, self.exclude, with_static=is_borrowed),
            retry_policy=self._built_retry_policy(),
            records=self._built_record_options(whole, renew_on),
            rules=Rules(
                resave=self.resave,
                rolling=self.rolling,
                save_uninitialized=self.save_uninitialized,
                empty_is_none=is_borrowed,
            ),
            passive=self._built_passive(),
            renew_on=renew_on,
            renew_on_in_order=in_order,
            renew_every=renew_every,
            watch_every=seconds(self.watch_every, name="watch_every"),
            is_eager=self.retries is not None if self.load is None else self.load == "eager",
        )

    def _built_signer(self) -> Signer:
        if self.secret is None:
            raise TypeError(
                "SessionOptions needs secret=...: it signs the cookie, so that nobody else can"
            )
        return Signer(self.secret)

    def _built_passive(self) -> RouteSelector | None:
        if isinstance(self.passive, Collection) and not self.passive:
            return None
        return RouteSelector(self.passive, (), option="passive")

    def _check_borrowed(self) -> None:
        for each in fields(self):
            given = getattr(self, each.name, each.default)
            if each.name in _NOT_BORROWED and given not in (each.default, CookieOptions()):
                raise OptionsError(
                    f"{each.name}={given!r} has no effect on {type(self.storage).__name__}: a "
                    "storage of aiohttp-session has its own cookie and ids, and one timeout, its "
                    "max_age"
                )

    def _built_retry_policy(self) -> RetryPolicy:
        policy = RetryPolicy(
            retries=0 if self.retries is None else self.retries,
            wait=self.retries_strategy,
            timeout=seconds(self.timeout, name="timeout"),
            budget=None if self.budget is None else seconds(self.budget, name="budget"),
        )
        if self.retries is None and self.retries_strategy is not no_wait:
            raise OptionsError(
                f"retries_strategy={self.retries_strategy!r} has no effect without retries: "
                "give retries=... as well"
            )
        if self.retries_strategy is not no_wait:
            # What is no number of seconds would only show in an outage.
            policy.pause(1)
        return policy

    def _built_record_options(
        self, whole: frozenset[str], renew_on: frozenset[str]
    ) -> RecordOptions:
        idle = self._idle_seconds()
        absolute = self.absolute_timeout
        return RecordOptions(
            timeouts=Timeouts(
                idle=idle,
                absolute=None if absolute is None else seconds(absolute, name="absolute_timeout"),
                touch_after=_share(self.touch_after, idle),
                idle_without_max_age=DAY if self.idle_timeout is None else idle,
            ),
            merge=self.merge,
            whole=whole,
            max_size=_checked_size(self.max_record_size),
            migration=_built_migration(self.version, self.migrate),
            principal_keys=renew_on,
            is_renewed_now_and_then=self.renew_every is not None,
            is_idle_by_cookie=self.idle_timeout is None
            and not isinstance(self.cookie, CookieOptions),
            renew_grace=seconds(self.renew_grace, name="renew_grace", zero=True),
            on_reuse=self.on_reuse,
        )

    def _idle_seconds(self) -> float:
        if self.idle_timeout is not None:
            return seconds(self.idle_timeout, name="idle_timeout")
        max_age = self.cookie.max_age if isinstance(self.cookie, CookieOptions) else None
        return DAY if max_age is None else seconds(max_age, name="cookie max_age")


def _built_migration(version: object, migrate: Migrate | None) -> Migration:
    if version is None:
        if migrate is not None:
            raise OptionsError(
                f"migrate={migrate!r} has no effect without version: give version=1, and raise it "
                "with each change of what is kept"
            )
        return Migration()
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise OptionsError(f"version={version!r} must be a whole number, 1 or more")
    if migrate is not None:
        _check_plain(migrate, "migrate", MIGRATES)
    return Migration(version, migrate)


def _check_storage(storage: object) -> None:
    # A class has the five verbs as well.
    if isinstance(storage, type) or not isinstance(storage, Storage | AbstractStorage):
        # Not the value of a str: a URL may hold a password.
        # Nor that of an object, which may fill pages, as a redis client's does.
        shown = "a str" if isinstance(storage, str) else _shown(storage)
        raise OptionsError(
            f"storage={shown} is not a storage: give MemoryStorage(), "
            "RedisStorage.from_url('redis://...') or an object with the five verbs"
        )


def _shown(value: object) -> str:
    if value is None or isinstance(value, type):
        return repr(value)
    return f"an object of {type(value).__name__}"


def _check_cookie(cookie: object) -> None:
    if isinstance(cookie, type) or not (isinstance(cookie, CookieOptions) or callable(cookie)):
        raise OptionsError(
            f"cookie={cookie!r} must be CookieOptions(...) or a function of the request"
        )


def _checked_keys(keys: object, name: str) -> tuple[str, ...]:
    if isinstance(keys, str) or not isinstance(keys, Iterable):
        raise OptionsError(f"{name}={keys!r} must be a list of keys: {name}=[{keys!r}]")
    # Once, for it may be an iterator; not as a set yet, for what cannot be in one is no str.
    given = list(cast("Iterable[object]", keys))
    checked = [key.name if isinstance(key, SessionKey) else key for key in given]
    if not all(isinstance(key, str) for key in checked):
        raise OptionsError(f"{name}={keys!r} must be a list of str")
    return tuple(cast("list[str]", checked))


def _checked_size(size: object) -> int:
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise OptionsError(
            f"max_record_size={size!r} must be a whole number of bytes, 1 or more, "
            "such as 1_000_000"
        )
    return size


def _check_callable(value: object, name: str, way_out: str) -> None:
    if not callable(value):
        raise OptionsError(f"{name}={value!r} is not callable: give a function that {way_out}")


def _check_plain(value: object, name: str, way_out: str) -> None:
    _check_callable(value, name, way_out)
    if inspect.iscoroutinefunction(value):
        # Nobody would await it.
        raise OptionsError(f"{name}={value!r} is a coroutine function: give a plain one")


def _check_one_of(
    value: object, name: str, allowed: tuple[object, ...], otherwise: str = ""
) -> None:
    if not any(value is each or (isinstance(each, str) and value == each) for each in allowed):
        listed = ", ".join(repr(each) for each in allowed)
        raise OptionsError(f"{name}={value!r} must be one of {listed}{otherwise}")


def _share(given: Duration | str, idle: float) -> float:
    if not isinstance(given, str):
        return seconds(given, name="touch_after", zero=True)
    percentage = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", given)
    if percentage is None:
        raise OptionsError(
            f"touch_after={given!r} must be seconds, a timedelta, or a share such as '5%'"
        )
    return idle * float(percentage[1]) / 100
