"""The record that most sessions have, read by its bytes: only the data are decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from aiosess.attributes import COOKIE_KEY, RESERVED_KEY, CookieOptions, SessionCookie
from aiosess.records.bonds import BOND, Bond
from aiosess.records.format import (
    AFTER_META,
    CREATED,
    LATEST,
    LOGIN,
    SHORT,
    may_be_deep,
    start_of,
    version_stamp,
)
from aiosess.records.migration import Migration
from aiosess.records.state import SessionState
from aiosess.storages import Stored

__all__ = ["Usual", "usual", "usual_bound", "usual_of"]

Usual: TypeAlias = Callable[[str, Stored, CookieOptions, float], SessionState | None]
"""What ``usual()`` is."""

_QUOTE: Final = ord('"')
_COMMA: Final = ord(",")

_Instant: TypeAlias = Annotated[float, msgspec.Meta(ge=0, lt=LATEST)]
_instant: Final = msgspec.json.Decoder(_Instant).decode
_decode: Final = msgspec.json.Decoder().decode
_bond: Final = msgspec.json.Decoder(Bond).decode


def usual(
    session_id: str, stored: Stored, cookie: CookieOptions, now: float
) -> SessionState | None:
    """Return the session that *stored* keeps where ``encode_usual()`` wrote it for such a *cookie*.

    ``None`` where it takes more to tell what the payload is, or whose; also where the session began
    after *now*.
    """
    payload = stored.payload
    rest = payload.removeprefix(start_of(session_id))
    meta, _, framed = rest.partition(AFTER_META)
    revision, _, instants = meta.partition(CREATED)
    # With a quote in it, the revision is not all that stands there.
    if rest is payload or _QUOTE in revision or (len(payload) > SHORT and may_be_deep(payload)):
        return None
    authenticated_at = None
    try:
        if _COMMA in instants:
            began, _, login = instants.partition(LOGIN)
            created_at, authenticated_at = _instant(began), _instant(login)
            if authenticated_at > now:
                return None
        else:
            created_at = _instant(instants)
        data: Any = _decode(b"{" + framed.removeprefix(cookie.frame))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    # Of two keys that are the same the last one counts; a cookie of other options is in the data.
    if created_at > now or COOKIE_KEY in data or RESERVED_KEY in data:
        return None
    return SessionState(
        session_id,
        SessionCookie(cookie),
        created_at,
        data,
        stored.version,
        only_data=True,
        authenticated_at=authenticated_at,
        instants=instants,
    )


def usual_of(migration: Migration) -> Usual:
    """Return what does as ``usual()`` for the records of the application's own version."""
    stamp = version_stamp(migration.version)
    if not stamp:
        return usual

    def usual_stamped(
        session_id: str, stored: Stored, cookie: CookieOptions, now: float
    ) -> SessionState | None:
        meta, _, rest = stored.payload.partition(AFTER_META)
        unstamped = meta.removesuffix(stamp)
        if unstamped is meta:
            return None
        plain = Stored(unstamped + AFTER_META + rest, stored.version)
        state = usual(session_id, plain, cookie, now)
        if state is not None:
            state.instants += stamp
            state.unknown = state.beginning = migration.beginning
        return state

    return usual_stamped


def usual_bound(plain: Usual, is_due: Callable[[str], bool]) -> Usual:
    """Return what does as *plain*, also for sessions that are bound to a principal.

    ``None`` where *is_due* says of the id that the session is to be looked at.
    """

    def usual_whoever(
        session_id: str, stored: Stored, cookie: CookieOptions, now: float
    ) -> SessionState | None:
        meta, _, rest = stored.payload.partition(AFTER_META)
        unbound, _, said = meta.partition(BOND)
        if not said:
            return plain(session_id, stored, cookie, now)
        if is_due(session_id):
            return None
        try:
            bond = _bond(b'{"handle":' + said + b"}")
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return None
        payload = unbound + AFTER_META + rest
        state = plain(session_id, Stored(payload, stored.version), cookie, now)
        if state is not None:
            state.instants += BOND + said
            state.bond = state.kept_bond = bond
        return state

    return usual_whoever
