"""What express-session, nestjs-session or aiohttp-session has and aiosess has not, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ABSENT", "Feature"]

EX: Final = "express-session"
CR: Final = "connect-redis"
NS: Final = "nestjs-session"
AS: Final = "aiohttp-session"


@dataclass(frozen=True, slots=True)
class Feature:
    """Something that *system* has: what aiosess has in its place, or why it has nothing."""

    feature: str
    system: str
    answer: str


ABSENT: Final = (
    Feature(
        "`forRoot()` without options",
        NS,
        "There is no session without a secret, and no default for one. "
        "`SessionOptions(secret=...)` is enough.",
    ),
    Feature(
        "One module call installs several middlewares",
        NS,
        "`app.middlewares` is a list already; two calls append two, each for its own routes.",
    ),
    Feature(
        "`forRoutes` by API version",
        NS,
        "aiohttp has no versioned routes. A version in the path or in the route's name is chosen "
        "as any other: `for_routes=['v2.*']`, `'/v2/{tail:.*}'`.",
    ),
    Feature(
        "`session` undefined for a path mismatch counts as an outage and ends in 500",
        NS,
        "Deliberately not: a route without a session is no failure and is never retried.",
    ),
    Feature(
        "Warnings where `resave` and `saveUninitialized` are left out",
        EX,
        "They exist because Express means to change its defaults. Ours are the new ones already.",
    ),
    Feature("The option `key`", EX, "One word for it, `name`; another would only be a synonym."),
    Feature(
        "`maxAge` as a date",
        EX,
        "Deprecated there. `expires` takes a date, `max_age` seconds or a `timedelta`.",
    ),
    Feature(
        "`cookie.maxAge` that shrinks as time goes by",
        EX,
        "`session.cookie.max_age` is what was set. What is left is `session.expires_at` minus now.",
    ),
    Feature(
        "All attributes of the cookie are fixed when the session begins",
        EX,
        "Only what a handler set for this session is kept with it (and `max_age`, as in Express). "
        "A new option reaches the sessions that exist, too.",
    ),
    Feature(
        "A bad cookie attribute is reported when the headers are written",
        EX,
        "It is refused where it is assigned, or when the options are built.",
    ),
    Feature(
        "The secret from `req.secret`, ids from `req.cookies` and `req.signedCookies`",
        EX,
        "Deprecated there, and they name a parser that aiohttp has not.",
    ),
    Feature(
        "Storages that call back synchronously",
        EX,
        "The five verbs are coroutines. One that does not wait costs no turn of the loop.",
    ),
    Feature(
        "Storages without `touch`",
        EX,
        "Without it an unchanged session would die under an active user, so that it is one of the "
        "five verbs.",
    ),
    Feature(
        "The error code ENOENT from a storage means 'not found'",
        EX,
        "`load` returns `None` for that; an exception is always a failure.",
    ),
    Feature(
        "`connect` and `disconnect` events of a storage",
        EX,
        "connect-redis has not sent them since 2019. Each call has a timeout and retries instead, "
        "so that the storage's state is found out by asking it.",
    ),
    Feature(
        "`store.all()`, `length()`, `clear()`",
        EX,
        "Not among the five verbs, which every storage has: memcached cannot list, and listing all "
        "keys stops a large Redis. The storage's own client can do it where it must be.",
    ),
    Feature(
        "`store.load(id)`: a session outside a request",
        EX,
        "`await storage.load(session_id)` gives the record's bytes, which are JSON.",
    ),
    Feature(
        "A body's first bytes leave while the session is being saved",
        EX,
        "All of the response waits, so that a redirect never overtakes the save and a failure can "
        "still be a 500.",
    ),
    Feature(
        "The debug switch `DEBUG=express-session`",
        EX,
        "`logging.getLogger('aiosess').setLevel('DEBUG')`, as everywhere in Python.",
    ),
    Feature(
        "`ttl` as a function of the session; `disableTTL`, `disableTouch`",
        CR,
        "`session.cookie.max_age` is one session's own idle timeout; `idle_timeout` and "
        "`touch_after` say the rest. A record without an end is a leak.",
    ),
    Feature(
        "A serializer of one's own",
        CR,
        "The record is JSON so that Express can read it.",
    ),
    Feature(
        "Flags that must be set for a nested change (`session.changed()`)",
        AS,
        "The call is there and works; nothing needs it, for what is read is compared with what is "
        "left.",
    ),
    Feature(
        "`encoder` and `decoder` of a storage",
        AS,
        "As above: JSON, for the sake of Node. Storages by way of `aiosess.compat` keep theirs.",
    ),
    Feature(
        "`key_factory()` without arguments",
        AS,
        "`genid(request)`; `genid=lambda _request: make()` takes an old one over.",
    ),
    Feature(
        "The data in the cookie: `SimpleCookieStorage`, `EncryptedCookieStorage`, NaCl",
        AS,
        "Not as a storage of the five verbs: what lies in the browser can neither be revoked nor "
        "compared-and-set. `aiosess.compat` serves them for those who move.",
    ),
    Feature(
        "`created` moves with every write",
        AS,
        "It stays what it was when the session began; `absolute_timeout` counts from there.",
    ),
    Feature(
        "An empty session is kept as an empty record",
        AS,
        "`invalidate()` deletes the record, so that nothing is left that leads nowhere.",
    ),
    Feature(
        "A session without `max_age` lives in Redis for ever",
        AS,
        "It lives for the idle timeout, by default 24 hours.",
    ),
)
