"""What the Node packages do, case by case, in our own words; each one is answered by a test.

The letters: E and C are the test cases of express-session 1.19 (``test/session.js`` and
``test/cookie.js``), N those of nestjs-session, M those of create-nestjs-middleware-module, and S
is what stands only in the code of express-session.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["CASES", "GROUPS", "Case"]


@dataclass(frozen=True, slots=True)
class Case:
    """One behaviour; *node_only* says why no test in Python can answer it, and what is near."""

    number: str
    behaviour: str
    node_only: str = ""


GROUPS: Final[dict[str, tuple[Case, ...]]] = {
    "Sessions in general": (
        Case("E1", "The package exports its session, the base of storages, and a memory storage."),
        Case("E2", "A second middleware does nothing where the request has a session already."),
        Case("E3", "Without a secret there is an error that says so."),
        Case(
            "E4",
            "The secret may come from the request.",
            "Deprecated in Express; give `secret=` once, or a list to rotate it.",
        ),
        Case("E5", "The first request gets a new session, its record and its cookie."),
        Case("E6", "The next request with that cookie finds what the first put in."),
        Case("E7", "A storage that fails to read harms only a browser that has a cookie."),
        Case("E8", "A storage that says 'not found' leads to a new session."),
        Case("E9", "Browsers without a cookie get a session each."),
        Case("E10", "A request target without a path counts as `/`."),
        Case(
            "E11",
            "Ending a response twice is harmless.",
            "An aiohttp handler returns its response once.",
        ),
        Case(
            "E12",
            "Ending a response with `null` sends an empty body.",
            "`web.Response()` is that; E18 has an empty body.",
        ),
        Case("E13", "A data key that is called like a method does not hide the method."),
        Case("E14", "Iterating over a session gives its data keys, and `cookie`."),
        Case("E15", "An id that is no string is neither stored nor sent."),
        Case("E16", "With `rolling`, a slowly written response moves the cookie's end on."),
        Case("E17", "When the client has the whole response, the session was saved once."),
        Case("E18", "The same for an empty body."),
        Case("E19", "The same for a body written in parts."),
        Case("E20", "The same for a body of known length."),
        Case("E21", "The record's end is the cookie's end, and moves on with it."),
        Case("E22", "An id whose record is gone leads to a new session."),
        Case("E23", "That session has a new id: an unknown id is never adopted."),
        Case("E24", "An unsigned id leads to a new session."),
        Case("E25", "A damaged signature leads to a new session, and the storage is not asked."),
        Case("E26", "A record that has expired leads to a new session."),
        Case("E27", "That session has a new id."),
        Case("E28", "An expired record is no longer in the storage."),
        Case("E29", "A record without its cookie part is an error."),
    ),
    "The `proxy` option, with a secure cookie": (
        Case("E30", "`proxy=True` believes `X-Forwarded-Proto: https`."),
        Case("E31", "Of a list in `X-Forwarded-Proto`, the first value counts."),
        Case("E32", "`proxy=True` without the header: no cookie over plain HTTP."),
        Case("E33", "`proxy=False` does not believe the header."),
        Case("E34", "`proxy=False` does not believe the framework's word either."),
        Case("E35", "Without `proxy`, the header is not believed."),
        Case("E36", "Without `proxy`, the framework's word is believed."),
    ),
    "The `cookie` option": (
        Case("E37", "A request outside the cookie's path gets no session."),
        Case("E38", "The host is never mistaken for the path."),
        Case("E39", "A request below the cookie's path gets one."),
        Case("E40", "And so does one at the path, or deeper."),
        Case("E41", "In a mounted application the whole path counts."),
        Case("E42", "So that a path that fits only behind the prefix does not."),
        Case("E43", "`secure='auto'` with a trusted header: Secure."),
        Case("E44", "`secure='auto'` with `proxy=False` and the header: not Secure."),
        Case("E45", "`secure='auto'` without `proxy`, over what the framework calls TLS: Secure."),
        Case("E46", "`secure='auto'` without `proxy`, over plain HTTP: not Secure."),
        Case("E47", "A function may return the cookie's attributes."),
        Case("E48", "That function is given the request."),
        Case("E49", "`samesite='auto'` over TLS: None."),
        Case("E50", "`samesite='auto'` over plain HTTP: Lax."),
        Case("E51", "`samesite='auto'` behind a trusted proxy that says https: None."),
        Case("E52", "`samesite='auto'` behind a trusted proxy that says http: Lax."),
        Case("E53", "`samesite='auto'` behind a proxy that is not trusted: Lax."),
        Case("E54", "Both `'auto'` over TLS: Secure and None."),
        Case("E55", "Both `'auto'` over plain HTTP: not Secure, and Lax."),
        Case("E56", "`secure=False` and `samesite='auto'` over TLS: None without Secure."),
        Case("E57", "`secure=False` and `samesite='auto'` over plain HTTP: Lax."),
        Case("E58", "`secure=True` and `samesite='auto'` over TLS: Secure and None."),
        Case("E59", "`secure=True` and `samesite='auto'` over plain HTTP: no cookie."),
    ),
    "The `genid` option": (
        Case("E60", "What is not a function is refused when the options are built."),
        Case("E61", "There is a default."),
        Case("E62", "A function gives the id, and the cookie is signed exactly so."),
        Case("E63", "Characters that a cookie cannot hold are encoded exactly so."),
        Case("E64", "The function is given the request."),
    ),
    "The `name` option": (
        Case("E65", "`key` defaults to `connect.sid`."),
        Case("E66", "`key` sets the cookie's name."),
        Case("E67", "`name` defaults to `connect.sid`."),
        Case("E68", "`name` sets the cookie's name."),
    ),
    "The `rolling` option": (
        Case("E69", "It is off by default: writing equal data sends no cookie again."),
        Case("E70", "It sends the cookie again for a session that did not change."),
        Case("E71", "It sends none for an untouched new session that is not to be saved."),
        Case("E72", "With `save_uninitialized` it saves such a session and sends its cookie."),
        Case("E73", "A new session that was changed is saved and sent in any case."),
    ),
    "The `resave` option": (
        Case("E74", "It is on by default."),
        Case("E75", "It writes a session that did not change."),
        Case("E76", "Without it, a session that did not change is not written."),
        Case("E77", "Without it, one that did change is."),
        Case("E78", "A change inside a value is noticed, also under a key called `cookie`."),
        Case("E79", "A failing touch is reported, and the response is not harmed."),
    ),
    "The `save_uninitialized` option": (
        Case("E80", "It is on by default."),
        Case("E81", "It saves a new session that was not changed, and sends its cookie."),
        Case("E82", "Without it, neither is done."),
        Case("E83", "Without it, a new session that was changed is saved."),
        Case("E84", "A failing save is reported, and the response goes out as it was."),
        Case("E85", "Without it, an untouched new session is not touched in the storage."),
    ),
    "The `secret` option": (
        Case("E86", "An empty list is refused."),
        Case("E87", "A string signs and is recognised."),
        Case("E88", "Bytes do as well."),
        Case("E89", "A list does as well."),
        Case("E90", "The first of a list signs."),
        Case("E91", "Each of a list is recognised."),
    ),
    "The `unset` option": (
        Case("E92", "Other words than `keep` and `destroy` are refused."),
        Case("E93", "It defaults to `keep`: the record stays."),
        Case("E94", "`destroy` deletes the record of a session that the handler took away."),
        Case("E95", "A new session that was taken away is not stored and sends no cookie."),
        Case("E96", "A failing delete is reported, and the response goes out as it was."),
    ),
    "The end of a response": (
        Case(
            "E97",
            "Another middleware wrapped `res.end` before.",
            "aiohttp has no such patching: a middleware outside ours gets the response from us.",
        ),
        Case(
            "E98",
            "Another middleware wrapped `res.end` after.",
            "The same: a middleware inside ours hands its response to us.",
        ),
        Case(
            "E99",
            "Ending twice fails as it does in a bare Node server.",
            "An aiohttp handler returns its response once.",
        ),
    ),
    "What a handler holds": (
        Case("E100", "What a handler puts in stands in the storage under the session's id."),
        Case("E101", "A persistent cookie is sent again only when the session was changed."),
        Case("E102", "Methods do not show up among the keys."),
        Case("E103", "While the storage is away there is no session and no cookie."),
        Case("E104", "When it is back, so is the session."),
        Case("E105", "`destroy()` deletes the record."),
        Case("E106", "`regenerate()` gives an empty session under a new id."),
        Case("E107", "`reload()` shows what another request wrote meanwhile."),
        Case("E108", "`reload()` of a session whose record is gone is an error."),
        Case("E109", "Failing to reload again and again is harmless."),
        Case("E110", "`save()` writes at once."),
        Case("E111", "What `save()` wrote is not written again at the end."),
        Case("E112", "Nor is it after `reload()`."),
        Case("E113", "Nor is it for a new session that is not to be saved uninitialized."),
        Case("E114", "`touch()` lets the record live longer."),
    ),
    "The cookie of one session": (
        Case("E115", "Attributes can be set for one session."),
        Case("E116", "Without `max_age` the cookie ends with the browser."),
        Case("E117", "Such a cookie is sent once."),
        Case("E118", "The options' attributes and the session's own come together."),
        Case("E119", "An end that is no date is reported, and the response goes out."),
        Case("E120", "Cookies that the application set stay."),
        Case("E121", "Cookies that were added while the headers were written stay."),
        Case("E122", "The `max_age` that was set can be read back."),
        Case("E123", "And it is the same in later requests."),
        Case("E124", "Also from a storage that gives dates as objects."),
        Case("E125", "A secure cookie is sent over TLS."),
        Case("E126", "And withheld over plain HTTP."),
        Case("E127", "The cookie's end is `max_age` from now."),
        Case("E128", "A handler may change it."),
        Case("E129", "To a number beyond 32 bits of milliseconds, too."),
        Case("E130", "A fixed end is sent as it is."),
        Case("E131", "No end at all: the cookie ends with the browser."),
        Case("E132", "Then it is not sent again."),
        Case("E133", "Not even when the data change."),
        Case("E134", "`Partitioned` is left out by default."),
        Case("E135", "And when it is `False`."),
        Case("E136", "And sent when it is `True`."),
    ),
    "A storage that answers at once": (
        Case("E137", "Saving works with a storage that calls back synchronously."),
        Case("E138", "And so does destroying, in a streamed response."),
    ),
    "Together with a cookie parser": (
        Case(
            "E139",
            "The id is read from cookies that a parser left on the request.",
            "Deprecated in Express; aiohttp parses cookies itself.",
        ),
        Case(
            "E140",
            "An unsigned id in them is refused.",
            "The same: E24 has it in the header.",
        ),
        Case(
            "E141",
            "A damaged signature in them is refused.",
            "The same: E25 has it in the header.",
        ),
        Case(
            "E142",
            "The id is read from cookies whose signature a parser verified.",
            "Deprecated in Express; only aiosess verifies signatures here.",
        ),
    ),
    "The cookie's attributes as an object": (
        Case("C1", "It can be built without arguments."),
        Case("C2", "Its fixed end defaults to none."),
        Case("C3", "HttpOnly is the default."),
        Case("C4", "The path defaults to `/`."),
        Case("C5", "`max_age` defaults to none."),
        Case("C6", "It can be built from an empty set of options."),
        Case("C7", "What is no set of options is refused."),
        Case("C8", "An option called `data` is ignored."),
        Case("C9", "A fixed end is kept as it is given."),
        Case("C10", "`max_age` can be read off a fixed end."),
        Case("C11", "HttpOnly can be turned off."),
        Case("C12", "`max_age` fixes the end that many seconds from now."),
        Case("C13", "`max_age` reads back as a number."),
        Case("C14", "`max_age` may be a date."),
        Case("C15", "`max_age` of another type is refused."),
        Case("C16", "`partitioned` is kept."),
        Case("C17", "`path` is kept."),
        Case("C18", "`priority` is kept."),
    ),
    "nestjs-session": (
        Case("N1", "`forRoot(options)`: views are counted for one browser."),
        Case("N2", "`forRootAsync({useFactory})`: the same with options from a factory."),
        Case("N3", "Without `retries`, a storage that is away: the handler gets no session."),
        Case("N4", "With `retries: 0`, a storage that is away: 500, no handler."),
        Case("N5", "With `retries: 1`, a storage that comes back in time: the handler runs."),
        Case("N6", "With `retries: 0`, a storage that fails to read: only known browsers get 500."),
        Case("N7", "`forRoutes`: the other routes have no session and set no cookie."),
        Case("N8", "`exclude` wins over `forRoutes`."),
    ),
    "create-nestjs-middleware-module": (
        Case("M1", "`forRoot()` without options builds the middleware from `{}`."),
        Case("M2", "`forRoot(params)` builds it from exactly these."),
        Case("M3", "`forRootAsync({useFactory})` builds it from the factory's awaited result."),
        Case("M4", "A factory may return several middlewares; they run once each, in order."),
        Case("M5", "The routing options choose the routes and are kept from the middleware."),
    ),
    "Only in the code of express-session": (
        Case("S1", "A record is written even where the secure cookie is withheld."),
        Case("S2", "The cookie's path is compared as a prefix of the text."),
        Case("S3", "Outside the cookie's path there is neither session nor id nor storage."),
        Case("S4", "A cookie with an older secret's signature is signed anew when one is due."),
        Case("S5", "Of several cookies with the name, only the first is looked at."),
        Case("S6", "`regenerate()` goes on with a new session though deleting the old one failed."),
        Case("S7", "A storage without touch: records are not kept alive."),
        Case(
            "S8", "With `max_age`, unchanged: the record lives on, the browser's cookie does not."
        ),
        Case("S9", "`secure='auto'` is settled when the session begins, and kept in the record."),
        Case("S10", "`'auto'` from a cookie function is not settled at all."),
        Case("S11", "Two middlewares on one storage: the later one's options win for both."),
        Case("S12", "While the storage is away, requests get no cookie and no error."),
        Case("S13", "The cookie goes with the headers; data changed later are still saved."),
        Case("S14", "The end of the body is held back until the storage has confirmed."),
        Case("S15", "A session of which nothing but its cookie was changed is not written."),
        Case("S16", "A cookie's end is sent as `Expires` alone."),
        Case("S17", "A `reload()` that fails changes nothing: what was put in is saved."),
        Case("S18", "`rolling` and `touch` also act for a handler that looked at no session."),
    ),
}

CASES: Final = {case.number: case for cases in GROUPS.values() for case in cases}
