"""What happened and why: the one place where a log line begins.

Each reason has its level and its words here. Whoever notices something tells it to an ``Events``,
which writes the line to the logger ``aiosess`` and hands an ``Event`` to a listener, where there
is one. No event holds a session id or data of a session.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from msgspec import Struct

__all__ = ["Event", "Events", "Listener", "Reason"]

_log: Final = logging.getLogger("aiosess")


class Reason(enum.Enum):
    """Why something happened: the level of its log line, and its words."""

    # Sessions.
    SESSION_ENDED = (
        logging.WARNING,
        "a session ended while a request was using it: its changes were dropped",
    )
    OLD_ID_USED = (
        logging.WARNING,
        "a session id was used after it had been renewed: it is refused",
    )
    LOGIN_IN_STREAM = (
        logging.WARNING,
        "a login in a streamed response keeps the session id: the headers left",
    )
    RECORD_UNREADABLE = (
        logging.WARNING,
        "a record cannot be read ({error}): it counts as absent",
    )
    CHANGE_LOST = (
        logging.INFO,
        "two requests changed {path!r}, and the change that is called {side!r} was dropped",
    )
    CHANGED_TOO_LATE = (
        logging.WARNING,
        "a change to a session came too late and is lost: {error}",
    )
    # Cookies.
    SECURE_NAME_WITHHELD = (
        logging.WARNING,
        (
            "the cookie {name!r} is withheld and no session kept: its name needs a secure "
            "connection, and this one is not; behind a TLS proxy, set proxy=True"
        ),
    )
    SECURE_COOKIE_WITHHELD = (
        logging.WARNING,
        (
            "the cookie {name!r} is withheld and no session kept: it is secure, and the "
            "connection is not; behind a TLS proxy, set proxy=True, and for plain HTTP "
            "CookieOptions(secure='auto')"
        ),
    )
    OUTSIDE_PATH = (
        logging.WARNING,
        (
            "a session was asked for at {path!r}, and there can be none: the path of its cookie is "
            "{cookie_path!r}, so that no browser sends it there; widen CookieOptions(path=...)"
        ),
    )
    OUTSIDE_DOMAIN = (
        logging.WARNING,
        (
            "the domain of the cookie {name!r} is {domain!r}, and the request was for {host!r}: a "
            "browser refuses such a cookie, so that each request begins a new session; mend "
            "CookieOptions(domain=...), or let the proxy pass Host on"
        ),
    )
    NO_ROUTES = (
        logging.WARNING,
        "for_routes=[] gives no route a session: leave it out for all of them",
    )
    LONG_MAX_AGE = (
        logging.WARNING,
        (
            "cookie max_age={max_age!r} is {days} days, and browsers keep a cookie for 400: "
            "max_age is in seconds; are these milliseconds?"
        ),
    )
    WEAK_SECRET = (
        logging.WARNING,
        (
            "a secret has fewer than {least} bytes and could be guessed: make one with python "
            '-c "import secrets; print(secrets.token_hex(32))"'
        ),
    )
    # Storages.
    WITHOUT_SESSION = (logging.WARNING, "the request goes on without its session: {error}")
    REFUSED = (logging.ERROR, "the request is refused without its session: {error}")
    NOT_TOUCHED = (
        logging.WARNING,
        "a record could not be touched, and may end too early: {error}",
    )
    NOT_FINISHED = (
        logging.ERROR,
        "what a cancelled request had changed could not be kept: {error}",
    )
    ONE_PROCESS = (
        logging.WARNING,
        (
            "MemoryStorage keeps sessions in this process only: they end with it, and another "
            "process does not see them. Use RedisStorage where there are several."
        ),
    )
    # Storages that were made for aiohttp-session.
    BORROWED_LIMITS = (logging.WARNING, "{storage} is a storage of aiohttp-session: {limits}")
    BORROWED_UNREADABLE = (
        logging.WARNING,
        "a cookie or record cannot be read ({storage}: {error}): there is no session then",
    )
    COOKIE_UNDECIPHERED = (
        logging.WARNING,
        "a session cookie cannot be decrypted: there is no session then",
    )
    COOKIE_NOT_JSON = (
        logging.WARNING,
        "a session cookie is not JSON: there is no session then",
    )
    COOKIE_TOO_LARGE = (
        logging.ERROR,
        (
            "the session is lost: its cookie has {size} bytes, of which browsers keep {most} "
            "at the most; use a storage that keeps the data on the server"
        ),
    )

    def __init__(self, level: int, words: str) -> None:
        self.level = level
        self.words = words


class Event(Struct, frozen=True):
    """Something that happened: its reason, and the details that its words name."""

    reason: Reason
    details: dict[str, Any]

    @property
    def text(self) -> str:
        """The log line."""
        return self.reason.words.format(**self.details)


Listener: TypeAlias = Callable[[Event], None]


class Events:
    """Tells what happens to the log and to *listener*."""

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener
        self._told_once: set[str] = set()

    def tell(self, reason: Reason, **details: Any) -> None:
        """Tell that something happened for *reason*; its words name the *details*."""
        event = Event(reason, details)
        _log.log(reason.level, "%s", event.text)
        if self._listener is not None:
            self._listener(event)

    def tell_first(self, reason: Reason, **details: Any) -> None:
        """Tell it the first time, and no more, whatever the details."""
        if reason.name not in self._told_once:
            self._told_once.add(reason.name)
            self.tell(reason, **details)

    def tell_once(self, reason: Reason, **details: Any) -> None:
        """Tell it the first time; the same reason with other details is told again."""
        said = Event(reason, details).text
        if said not in self._told_once:
            self._told_once.add(said)
            self.tell(reason, **details)
