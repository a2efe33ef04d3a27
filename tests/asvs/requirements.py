"""What two standards ask of sessions, number by number, in our own words, and whose task it is.

ASVS 5.0.0, chapter 7, numbers its requirements. SP 800-63B-4, section 5, numbers its sections and
the items of its lists: "5.1.1-3" is item 3 of the list in 5.1.1. What stands outside of lists gets
letters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["ASVS", "NIST", "REQUIREMENTS", "Requirement"]


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement: what it *asks*, and what is whose; empty where there is nothing to say.

    - ``level``: the level of ASVS from which it counts; how binding it is with NIST.
    - ``provided``: what aiosess does. A test has to show that.
    - ``application``: what is left to the application.
    - ``missing``: what aiosess is to have one day, and has not.
    """

    number: str
    level: str
    asks: str
    provided: str = ""
    application: str = ""
    missing: str = ""


ASVS: Final[dict[str, tuple[Requirement, ...]]] = {
    "7.1 Documentation": (
        Requirement(
            "7.1.1",
            "level 2",
            "The idle and the absolute timeout are written down, with the reason where they are "
            "longer than NIST says.",
            "Both are options with a documented default (24 hours, and none); an absolute one that "
            "is shorter than the idle one is refused.",
            "Choose `idle_timeout` and `absolute_timeout`, and write down why.",
        ),
        Requirement(
            "7.1.2",
            "level 2",
            "How many sessions an account may have at once, and what happens at one more, is "
            "written down.",
            "`Principals(max_sessions=100)` limits the sessions of each principal, and `evict` "
            "says whether a login too many ends another session or is refused.",
            "Choose both, write down why, and call `session.bind()` at login.",
        ),
        Requirement(
            "7.1.3",
            "level 2",
            "All systems of a single sign-on are documented, with how their sessions' lives and "
            "ends fit together.",
            application="Document it.",
        ),
    ),
    "7.2 Fundamentals": (
        Requirement(
            "7.2.1",
            "level 1",
            "Tokens are verified by a trusted service behind the application, not in the browser.",
            "The signature is verified on the server, in constant time, and the data are read from "
            "the storage. An unsigned, tampered or unknown id is never adopted, and without a "
            "signature that holds the storage is not asked.",
            "Keep the secret out of the code, and 32 bytes long.",
        ),
        Requirement(
            "7.2.2",
            "level 1",
            "Tokens are made for each session; none is a fixed key.",
            "Each session has an id of its own.",
            "A `genid` of your own has to be as good.",
        ),
        Requirement(
            "7.2.3",
            "level 1",
            "Ids are unique, and have 128 bits or more from a cryptographic random generator.",
            "192 bits from the operating system's generator. An id that is taken is refused, "
            "never shared.",
            "A `genid` of your own has to be as good.",
        ),
        Requirement(
            "7.2.4",
            "level 1",
            "A login, also a repeated one, gives a new token, and ends the one before.",
            "`authenticated()`, `bind()`, `renew_id()`, or a new value under a key of `renew_on`, "
            "gives a new id. Whoever has the old one sees the session as it was just before and "
            "changes nothing; that ends `renew_grace` (10 s) after the new id was first used. "
            "`regenerate()` ends the old one at once, and begins empty.",
            "Call `authenticated()` at each login and each repeated one, or name the key that says "
            "who is logged in.",
        ),
    ),
    "7.3 Timeouts": (
        Requirement(
            "7.3.1",
            "level 2",
            "Somebody who does nothing for a time has to log in again.",
            "`idle_timeout` ends the record on the server, whatever the cookie says.",
            "Choose it, and name what pages poll in `passive`: those requests keep no session "
            "alive.",
        ),
        Requirement(
            "7.3.2",
            "level 2",
            "After a longest time everybody has to log in again.",
            "`absolute_timeout` ends a session however busy it is. It counts from the last login "
            "(`authenticated()`, `bind()`, or a key in `renew_on`), else from when the session "
            "began.",
            "Set it: there is none by default.",
        ),
    ),
    "7.4 Ending": (
        Requirement(
            "7.4.1",
            "level 1",
            "What was logged out or has expired is of no use any more, on the server.",
            "`destroy()` deletes the record under each of its ids, also where the back-end takes "
            "no more writes, and raises where it could not. No request that was under way brings "
            "it back. `session.watch(ws)` closes a WebSocket with it, and `session.ended()` tells "
            "a stream.",
            "Call `destroy()` at logout. Let pages of somebody logged in be `no-store`, so that "
            "the back button shows none. Let what stays open be told: "
            "[WebSockets and streams](../how-to/websockets.md).",
        ),
        Requirement(
            "7.4.2",
            "level 1",
            "All sessions of an account that was disabled or deleted end.",
            "`principals.revoke(principal)` ends all of them; see [devices](../how-to/devices.md).",
            "Call it where an account is disabled or deleted.",
        ),
        Requirement(
            "7.4.3",
            "level 2",
            "After a new password or second factor, all other sessions can be ended.",
            "`principals.revoke(principal, keep=session)` ends all but the one that asks.",
            "Call it, or offer it, where a factor was changed.",
        ),
        Requirement(
            "7.4.4",
            "level 2",
            "Each page of somebody logged in offers the logout.",
            application="Show it.",
        ),
        Requirement(
            "7.4.5",
            "level 2",
            "Administrators can end the sessions of one user, and those of all.",
            "Of all: once a secret was taken out of `secret`, no session that was signed with it "
            "is accepted. Of one user: as for 7.4.2.",
            "Have a page for administrators that calls it.",
        ),
    ),
    "7.5 Against abuse": (
        Requirement(
            "7.5.1",
            "level 2",
            "Before an address, a phone number or a factor is changed, the user logs in again.",
            "`@require_fresh(within)` lets a handler run only where the last login, or the last "
            "`authenticated()`, is recent; see [step-up](../how-to/step-up.md).",
            "Mark such handlers with it, and ask for the password again.",
        ),
        Requirement(
            "7.5.2",
            "level 2",
            "Users see their sessions and, after a repeated login, can end each of them.",
            "`principals.sessions_of()` lists them, by handles that are no ids, and "
            "`principals.end()` ends one.",
            "Have a page for it, and let `@require_fresh` stand before the end.",
        ),
        Requirement(
            "7.5.3",
            "level 3",
            "Before something very sensitive, the user proves once more who they are.",
            "As for 7.5.1.",
            "As for 7.5.1, with the factor that it takes.",
        ),
    ),
    "7.6 Federation": (
        Requirement(
            "7.6.1",
            "level 2",
            "Sessions here and at the identity provider end as documented, and a login is asked "
            "for where the last one there is too long ago.",
            "`absolute_timeout` counts from the login. A label of `session.bind()` is what a "
            "session of the provider ends ours by, at once.",
            "Compare `auth_time` of the ID token, and end sessions as in "
            "[back-channel logout](../how-to/backchannel-logout.md), or by `revoke_label()`.",
        ),
        Requirement(
            "7.6.2",
            "level 2",
            "No session begins without the user's consent or act.",
            "A visit alone keeps nothing and sets no cookie: a session begins when a handler puts "
            "something in.",
            "Log nobody in without their act.",
        ),
    ),
}

NIST: Final[dict[str, tuple[Requirement, ...]]] = {
    "5.1 Bindings": (
        Requirement(
            "5.1-a",
            "shall",
            "Browser and server share a secret, which the browser itself presents.",
            "The id in the cookie is that secret: without one that is signed and known, there is "
            "no session.",
        ),
        Requirement(
            "5.1-b",
            "shall",
            "The session goes on by that secret alone, which is issued at the login and may be "
            "exchanged later.",
            "`authenticated()` and `bind()` issue it at the login, `rotate_id()` and `renew_every` "
            "exchange it.",
            "Call one of them at the login.",
        ),
        Requirement(
            "5.1-c",
            "should",
            "It does not outlive the browser, and a remembered browser is no login.",
            "By default the cookie ends with the browser.",
            "[Remember me](../how-to/remember-me.md) is a deviation: write down why.",
        ),
        Requirement(
            "5.1-d",
            "shall",
            "It is made by the server in answer to a login, whose level the session does not "
            "exceed.",
            "The id is always made by the server, and new at the login.",
            "Keep the level among the data, if there are several.",
        ),
        Requirement(
            "5.1-1",
            "shall",
            "It is established during the login or right after.",
            "As for 5.1-b.",
        ),
        Requirement(
            "5.1-2",
            "shall",
            "It has 64 bits or more, from an approved random generator.",
            "192 bits from the operating system's generator.",
            "Whether that one is approved is a question to the system.",
        ),
        Requirement(
            "5.1-3",
            "shall",
            "It is erased or made invalid at the logout.",
            "`destroy()` deletes the record, so that the id is worth nothing, and clears the "
            "cookie.",
            "Call it.",
        ),
        Requirement(
            "5.1-4",
            "shall",
            "It travels by an authenticated, protected channel.",
            "With a secure cookie (`secure=True`, or a name with `__Host-` or `__Secure-`) nothing "
            "is sent or kept over plain HTTP.",
            "Serve by TLS, and set it.",
        ),
        Requirement(
            "5.1-5",
            "shall",
            "It times out, and is not accepted after the times of its level.",
            "`idle_timeout` and `absolute_timeout`, on the server.",
            "Set both to the times of 5.2-d.",
        ),
        Requirement(
            "5.1-6",
            "shall",
            "Nobody between browser and server has it.",
            "It is in no log line, no event and nothing of ours that an error tracker is sent, and "
            "caches are told to leave the header out.",
            "Let TLS end where you trust the machine.",
        ),
        Requirement(
            "5.1-e",
            "should",
            "It is erased in the browser at the logout and when it expires, and does not lie where "
            "scripts can read it.",
            "The cookie is `HttpOnly`, and is cleared when the session ended.",
        ),
        Requirement(
            "5.1-f",
            "shall",
            "After the login there is no way back to an unprotected connection.",
            "A session that began over plain HTTP gets a new id and a secure cookie over TLS.",
            "`secure=True` and `Strict-Transport-Security`.",
        ),
        Requirement(
            "5.1-g",
            "shall",
            "What is posted carries an identifier that is verified against forged requests.",
            "The cookie is `SameSite=Lax`.",
            "Verify a token, as in [forged requests](../how-to/csrf.md).",
        ),
        Requirement(
            "5.1-h",
            "should",
            "The logout is easy to find.",
            application="Show it.",
        ),
    ),
    "5.1.1 Cookies": (
        Requirement(
            "5.1.1-1",
            "shall",
            "Sent over HTTPS only.",
            '`secure="auto"` makes it `Secure` over TLS; with `True` it is withheld elsewhere.',
            "Set `secure=True`.",
        ),
        Requirement(
            "5.1.1-2",
            "shall",
            "Sent to as few hosts and paths as can be.",
            "By default to this host only, and to `path`, by whole segments.",
            "Set no `domain` without need.",
        ),
        Requirement("5.1.1-3", "should", "Hidden from scripts.", "`HttpOnly` by default."),
        Requirement(
            "5.1.1-4",
            "should",
            "Expires with the session or soon after, which no timeout relies on.",
            "By default it ends with the browser; `max_age` is sent as `Max-Age` and `Expires`, "
            "and the record ends by itself.",
        ),
        Requirement(
            "5.1.1-5",
            "should",
            "Its name begins with `__Host-`, its path is `/`.",
            "The path is `/` by default. With such a name, options that a browser would refuse are "
            "an error.",
            'Choose `name="__Host-sid"`: the default is `sid`.',
        ),
        Requirement("5.1.1-6", "should", "`SameSite` is `Lax` or `Strict`.", "`Lax` by default."),
        Requirement(
            "5.1.1-7",
            "should",
            "Has nothing in it but an opaque id, and no personal data.",
            "It has the id and its signature; the data stay in the storage.",
            "`aiosess.compat`'s cookie storages are the exception: they keep the data in the "
            "cookie, encrypted but for `SimpleCookieStorage`.",
        ),
    ),
    "5.1.2 Access tokens": (
        Requirement(
            "5.1.2",
            "shall",
            "An access token of OAuth is no sign that somebody is there.",
            application="Take the session for that.",
        ),
    ),
    "5.2 Reauthentication": (
        Requirement(
            "5.2-a",
            "shall",
            "From time to time users log in again.",
            "After `absolute_timeout` the session is over.",
            "Set it.",
        ),
        Requirement(
            "5.2-b",
            "shall",
            "There are an overall timeout and one for inactivity, and the session ends by either.",
            "`absolute_timeout` and `idle_timeout`.",
            "Warn before the end, if you like: `session.expires_at` says when it is.",
        ),
        Requirement(
            "5.2-c",
            "shall",
            "Activity begins the inactivity timeout anew, a repeated login both.",
            "Reading a session touches its record; `authenticated()`, and a login by `renew_on`, "
            "begin both anew.",
            "Call `authenticated()` after a correct password.",
        ),
        Requirement(
            "5.2-d",
            "shall",
            "The times are set and written down. Overall: 30 days at AAL1 and 24 hours at AAL2 "
            "(should), 12 hours at AAL3 (shall). Inactivity: 1 hour at AAL2, 15 minutes at AAL3 "
            "(should).",
            "Any of these can be set.",
            "Set and document them: each level wants an overall one, and there is none by default.",
        ),
        Requirement(
            "5.2-e",
            "for your information",
            "Sessions here and at the identity provider end independently of each other.",
            application="Decide what their ends mean: "
            "[back-channel logout](../how-to/backchannel-logout.md).",
        ),
    ),
    "5.3 Monitoring": (
        Requirement(
            "5.3",
            "may",
            "Watch for signs of theft during the session, and mind that this is personal data.",
            "A listener is told when an id is used that was renewed away, and when a signature "
            "does not hold.",
            "Decide: the [audit trail](../how-to/audit.md) has the events.",
            "To end the session to which a renewed id led.",
        ),
    ),
}

REQUIREMENTS: Final[dict[str, dict[str, Requirement]]] = {
    mark: {each.number: each for group in groups.values() for each in group}
    for mark, groups in (("asvs", ASVS), ("nist", NIST))
}
