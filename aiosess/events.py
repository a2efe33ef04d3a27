"""What happened and why: the one place where a log line begins.

Each reason has its level and its words here. Whoever notices something tells it to an ``Events``,
which writes the line to the logger ``aiosess`` and hands a ``SessionEvent`` to a listener, where
there is one. No event holds a session id or data of a session.
"""

from __future__ import annotations

import enum
import logging
import math
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from aiosess.privacy import private
from aiosess.timeouts import steady_of

__all__ = [
    "BETWEEN_LINES",
    "Events",
    "Listener",
    "Reason",
    "SessionEvent",
    "Whose",
    "in_words",
    "tell_safely",
]

T = TypeVar("T")

_log: Final = logging.getLogger("aiosess")

BETWEEN_LINES: Final = 30.0
"""So many seconds are between two lines about what goes on, or happens again and again."""
# So many lines are remembered, so that none is told twice; what users send in may differ each time.
_MOST_TOLD: Final = 1_000


class Reason(enum.Enum):
    """Why something happened: what it concerns, the level of its log line, and its words."""

    # Sessions.
    SESSION_ENDED = (
        "session",
        logging.WARNING,
        "a session ended while a request was using it: its changes were dropped",
    )
    OLD_ID_USED = (
        "session",
        logging.INFO,
        "a session id was used after it had been renewed: it is refused",
    )
    REUSE_ENDED = (
        "session",
        logging.WARNING,
        "a session id that was rotated away came back after its grace: its session was ended",
    )
    FORMER_CHANGED = (
        "session",
        logging.INFO,
        "a change through a session id from before a login was dropped",
    )
    NOW_SECURE = (
        "session",
        logging.INFO,
        "a session that began without encryption came over TLS, and gets a new id",
    )
    LOGIN_IN_STREAM = (
        "session",
        logging.WARNING,
        "a login in a streamed response keeps the session id: the headers left",
    )
    RECORD_UNREADABLE = (
        "session",
        logging.WARNING,
        "a record cannot be read ({error}): it counts as absent",
    )
    NOT_MIGRATED = (
        "session",
        logging.INFO,
        "migrate() made nothing of a record of an older version: the session starts anew",
    )
    RECORD_COPIED = (
        "session",
        logging.INFO,
        "a record was copied from another session id, as Node code does at a login: it is taken",
    )
    BOUND = ("session", logging.INFO, "a session was bound to a principal")
    UNBOUND = ("session", logging.INFO, "a session was unbound from its principal")
    REVOKED = ("session", logging.INFO, "a session was revoked, and is over")
    EVICTED = (
        "session",
        logging.INFO,
        "a session was ended to make room for another one of the same principal or label",
    )
    # What is open beside a request: a WebSocket, a stream, a long handler.
    ENDED = ("watch", logging.DEBUG, "the session ended")
    EXPIRED = ("watch", logging.DEBUG, "the session expired")
    TAKEN_OVER = ("watch", logging.DEBUG, "the session has another principal now, or none")
    OUT_OF_SIGHT = (
        "watch",
        logging.INFO,
        "the storage did not answer until the session must have expired",
    )
    STOPPED = ("watch", logging.DEBUG, "the application stops")
    LOOK_FAILED = (
        "storage",
        logging.ERROR,
        "sessions that are watched could not be looked at, {count} times so far: {error!r}",
    )
    NOT_NOTIFIED = (
        "storage",
        logging.WARNING,
        (
            "nobody tells of sessions that end on other processes ({error}): what is open closes "
            "within {every:g} s, {count} times so far"
        ),
    )
    CHANGE_LOST = (
        "session",
        logging.INFO,
        "two requests changed session[{key!r}], and what is called {side!r} there was dropped",
    )
    VALUE_INVALID = (
        "session",
        logging.WARNING,
        "session[{key!r}] has not the type of its SessionKey, and the default stands for it: {why}",
    )
    CHANGED_TOO_LATE = (
        "session",
        logging.WARNING,
        "a change to a session came too late and is lost: {error}",
    )
    # Cookies.
    SECURE_NAME_WITHHELD = (
        "cookie",
        logging.WARNING,
        (
            "the cookie {name!r} is withheld and no session kept: its name needs a secure "
            "connection, and this one is not; {way_out}"
        ),
    )
    SECURE_COOKIE_WITHHELD = (
        "cookie",
        logging.WARNING,
        (
            "the cookie {name!r} is withheld and no session kept: it is secure, and the "
            "connection is not; {way_out}; for plain HTTP, set CookieOptions(secure='auto')"
        ),
    )
    OUTSIDE_PATH = (
        "cookie",
        logging.WARNING,
        (
            "a session was asked for at {path!r}, and there can be none: the path of its cookie is "
            "{cookie_path!r}, so that no browser sends it there; widen CookieOptions(path=...)"
        ),
    )
    OUTSIDE_DOMAIN = (
        "cookie",
        logging.WARNING,
        (
            "the domain of the cookie {name!r} is {domain!r}, and the request was for {host!r}: a "
            "browser refuses such a cookie, so that each request begins a new session; mend "
            "CookieOptions(domain=...), or let the proxy pass Host on"
        ),
    )
    NO_ROUTES = (
        "session",
        logging.WARNING,
        "for_routes=[] gives no route a session: leave it out for all of them",
    )
    LONG_MAX_AGE = (
        "cookie",
        logging.WARNING,
        (
            "cookie max_age={max_age!r} is {days} days, and browsers keep a cookie for 400: "
            "max_age is in seconds; are these milliseconds?"
        ),
    )
    WEAK_SECRET = (
        "cookie",
        logging.WARNING,
        (
            "a secret has fewer than {least} bytes and could be guessed: make one with python "
            '-c "import secrets; print(secrets.token_hex(32))"'
        ),
    )
    # Storages.
    OUTAGE_BEGAN = (
        "storage",
        logging.ERROR,
        "{words}: {error}",
    )
    OUTAGE_GOES_ON = (
        "storage",
        logging.ERROR,
        "{words} since {passed:.0f} s: {error}; {count} calls failed so far",
    )
    NODE_FORGOTTEN = (
        "storage",
        logging.INFO,
        "the storage at {node} is asked for nothing any more: another node has its records",
    )
    TOO_SLOW = (
        "storage",
        logging.WARNING,
        (
            "the budget of an act was spent before the storage at {node} was done: {count} in all "
            "so far; a session that many change at once, a slow server, or a budget= that is too "
            "short"
        ),
    )
    OUTAGE_ENDED = ("storage", logging.INFO, "{words} after {passed:.1f} s: {count} calls failed")
    WITHOUT_SESSION = (
        "storage",
        logging.DEBUG,
        "the request goes on without its session: {error}",
    )
    ANONYMOUS = (
        "storage",
        logging.DEBUG,
        "the request goes on with an empty session in the place of its own: {error}",
    )
    NOT_KEPT = (
        "storage",
        logging.DEBUG,
        "a change to a session is not kept, and the request is answered all the same: {error}",
    )
    REFUSED = ("storage", logging.DEBUG, "the request is refused without its session: {error}")
    REPLIES_MIXED_UP = (
        "storage",
        logging.ERROR,
        (
            "the storage answered with the record of another session, {count} times so far: "
            "replies were mixed up on the way, perhaps by a proxy; nobody saw it, and the "
            "connection is ended"
        ),
    )
    NOT_TOUCHED = (
        "storage",
        logging.DEBUG,
        "a record could not be touched, and may end too early: {error}",
    )
    TOUCH_REFUSED = (
        "storage",
        logging.WARNING,
        "a record could not be touched, and may end too early: {error}",
    )
    NOT_FINISHED = (
        "storage",
        logging.ERROR,
        "what a cancelled request had changed could not be kept: {error}",
    )
    NOT_ENDED = (
        "storage",
        logging.ERROR,
        "the session that a cancelled request was ending may still be there: {error}",
    )
    ONE_PROCESS = (
        "storage",
        logging.WARNING,
        (
            "MemoryStorage keeps sessions in this process only: they end with it, and another "
            "process does not see them. Use RedisStorage where there are several."
        ),
    )
    NO_ROOM = (
        "storage",
        logging.WARNING,
        (
            "MemoryStorage({option}) has no room: {count} sessions were removed before their end "
            "so far, those first that nobody came back to; raise it, or use RedisStorage"
        ),
    )
    # Storages that were made for aiohttp-session.
    BORROWED_LIMITS = (
        "storage",
        logging.WARNING,
        "{storage} is a storage of aiohttp-session: {limits}",
    )
    BORROWED_UNREADABLE = (
        "storage",
        logging.WARNING,
        "a cookie or record cannot be read ({storage}: {error}): there is no session then",
    )
    COOKIE_UNDECIPHERED = (
        "storage",
        logging.WARNING,
        "a session cookie cannot be decrypted: there is no session then",
    )
    COOKIE_NOT_JSON = (
        "storage",
        logging.WARNING,
        "a session cookie is not JSON: there is no session then",
    )
    COOKIE_TOO_LARGE = (
        "storage",
        logging.ERROR,
        (
            "the session is lost: its cookie has {size} bytes, of which browsers keep {most} "
            "at the most; use a storage that keeps the data on the server"
        ),
    )
    # How a session was opened: one of these for each request that asks, at DEBUG.
    NOT_SELECTED = ("session", logging.DEBUG, "the route gets no session")
    NOT_ASKED = ("session", logging.DEBUG, "nobody asked for the session")
    OPENED = ("session", logging.DEBUG, "the session was opened")
    NO_COOKIE = ("cookie", logging.DEBUG, "a new session: no cookie came")
    BAD_SIGNATURE = ("cookie", logging.DEBUG, "a new session: no signature of a cookie held")
    NO_RECORD = ("session", logging.DEBUG, "a new session: no record under the id that came")
    ID_REFUSED = ("session", logging.DEBUG, "a new session: the id that came is an old one")
    PATH_DIFFERS = ("cookie", logging.DEBUG, "no session: the path is not under the cookie's")
    UNAVAILABLE = ("storage", logging.DEBUG, "no session: the storage did not answer")
    # What became of it: one of these for each session that was opened, at DEBUG.
    UNCHANGED = ("session", logging.DEBUG, "not saved, because nothing was changed")
    CREATED = ("session", logging.DEBUG, "kept for the first time")
    REPLACED = ("session", logging.DEBUG, "saved")
    TOUCHED = ("session", logging.DEBUG, "not saved, because nothing was changed, but touched")
    RENEWED = ("session", logging.DEBUG, "saved under a new id")
    DELETED = ("session", logging.DEBUG, "ended")
    WITHHELD = ("cookie", logging.DEBUG, "not saved, because its cookie is withheld")
    DROPPED = ("session", logging.DEBUG, "its changes were dropped")
    FAILED = ("session", logging.DEBUG, "not saved, because something failed")

    def __init__(self, kind: str, level: int, words: str) -> None:
        self.kind = kind
        self.level = level
        self.words = words


@private("kind", "reason", "handle", "at")
class SessionEvent(Struct, frozen=True):
    """Something that happened to a session.

    - ``kind``: what it concerns: ``"session"``, ``"cookie"``, ``"storage"``, or ``"watch"`` for
      what is open beside a request.
    - ``reason``: why.
    - ``handle``: names the session to people without being its id; ``None`` where it is bound to
      nobody, or not known. ``principal``: who it belongs to, or did until it ended; in no
      ``repr()``.
    - ``request``: the request in which it happened; ``None`` where that is not known.
    - ``at``: Unix time.
    """

    kind: str
    reason: Reason
    handle: str | None
    request: Any
    at: float
    principal: str | None = None


class Whose(Protocol):
    """Says whose a session is."""

    @property
    def handle(self) -> str:
        """What names the session to people."""
        ...

    @property
    def principal(self) -> str:
        """To whom it belongs."""
        ...


Listener: TypeAlias = Callable[[SessionEvent], None]
"""What ``SessionOptions.on_event`` takes."""


def in_words(reasons: Iterable[Reason]) -> str:
    """Return *reasons* in one line, for people to read."""
    return "; ".join(each.words for each in reasons)


def tell_safely(listener: Callable[[T], object], event: T, option: str) -> None:
    """Tell *listener*, which *option* named; what it raises is logged, and no request fails."""
    try:
        listener(event)
    except Exception:  # noqa: BLE001 - whatever it was, the request goes on
        _log.exception("%s failed", option)


class Events:
    """Tells what happens to the log and to *listener*; *clock* gives Unix time."""

    def __init__(
        self, listener: Listener | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self._listener = listener
        self.is_heard: bool = False
        """Whether anybody hears the decisions of each request, as it was when that was asked."""
        self.ask_who_hears()
        self._clock = clock
        self._steady = steady_of(clock)
        self._told_once: set[str] = set()
        # By reason: how often it happened, and when that was told last.
        self._counted: dict[str, tuple[int, float]] = {}

    def ask_who_hears(self) -> None:
        """Find out once more whether anybody hears the decisions of each request."""
        self.is_heard = self._listener is not None or _log.isEnabledFor(logging.DEBUG)

    def tell(
        self, reason: Reason, *, request: Any = None, whose: Whose | None = None, **details: Any
    ) -> None:
        """Tell that something happened for *reason*; its words name the *details*."""
        _log.log(reason.level, "%s", reason.words.format(**details))
        self._hand_on(reason, request, whose)

    def tell_first(self, reason: Reason, *, request: Any = None, **details: Any) -> None:
        """Tell it the first time, and no more, whatever the details."""
        if reason.name not in self._told_once:
            self._told_once.add(reason.name)
            self.tell(reason, request=request, **details)

    def tell_once(self, reason: Reason, *, request: Any = None, **details: Any) -> None:
        """Tell it the first time; the same reason with other details is told again.

        After a thousand others it is forgotten, and told once more.
        """
        said = reason.words.format(**details)
        if said not in self._told_once:
            if len(self._told_once) >= _MOST_TOLD:
                self._told_once.clear()
            self._told_once.add(said)
            self.tell(reason, request=request, **details)

    def tell_now_and_then(self, reason: Reason, **details: Any) -> None:
        """Tell it the first time, then every half a minute at the most, and how often it happened.

        Its words have ``{count}``. A listener hears of each time.
        """
        count, told_at = self._counted.get(reason.name, (0, -math.inf))
        now = self._steady()
        is_due = now - told_at >= BETWEEN_LINES
        self._counted[reason.name] = (count + 1, now if is_due else told_at)
        if is_due:
            _log.log(reason.level, "%s", reason.words.format(count=count + 1, **details))
        self._hand_on(reason)

    def tell_decisions(
        self, reasons: Iterable[Reason], *, request: Any, whose: Whose | None = None
    ) -> None:
        """Tell what was decided in one request, in one line."""
        decided = tuple(reasons)
        if _log.isEnabledFor(logging.DEBUG):
            _log.debug("%s", in_words(decided))
        for each in decided:
            self._hand_on(each, request, whose)

    def _hand_on(self, reason: Reason, request: Any = None, whose: Whose | None = None) -> None:
        if self._listener is None:
            return
        handle, principal = (None, None) if whose is None else (whose.handle, whose.principal)
        event = SessionEvent(reason.kind, reason, handle, request, self._clock(), principal)
        tell_safely(self._listener, event, "on_event")
