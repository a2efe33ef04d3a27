"""The record that most sessions have, read by its bytes: only the data are decoded."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from aiosess.attributes import COOKIE_KEY, RESERVED_KEY, CookieOptions, SessionCookie
from aiosess.privacy import private
from aiosess.records.bonds import BOND, Bond
from aiosess.records.format import (
    AFTER_META,
    CREATED,
    LATEST,
    MOST_REMEMBERED,
    SHORT,
    may_be_deep,
    start_of,
)
from aiosess.records.migration import Migration
from aiosess.records.state import SessionState
from aiosess.storages import Stored

__all__ = ["Usual", "usual_of"]

Usual: TypeAlias = Callable[[str, Stored, CookieOptions, float], SessionState | None]
"""Takes an id, what is kept under it, the cookie's options, and Unix time.

Returns the session where ``encode_usual()`` wrote it for such a cookie. ``None`` where it takes
more to tell what the payload is, or whose; also where the session began after that time.
"""

_QUOTE: Final = ord('"')
_COMMA: Final = ord(",")

_Instant: TypeAlias = Annotated[float, msgspec.Meta(ge=0, lt=LATEST)]
_instant: Final = msgspec.json.Decoder(_Instant).decode
_decode: Final = msgspec.json.Decoder().decode


@private()
class _Said(Struct, forbid_unknown_fields=True):
    """What a usual record may say of its session; the names are those in the record."""

    created: _Instant
    auth: _Instant | None = None
    version: Annotated[int, msgspec.Meta(gt=0)] = 0


_said: Final = msgspec.json.Decoder(_Said).decode
_bond: Final = msgspec.json.Decoder(Bond).decode


@lru_cache(maxsize=MOST_REMEMBERED)
def _said_in(
    instants: bytes, version: int
) -> tuple[float, float | None, Bond | None, float] | None:
    """Return when a session began, its last login, whose it is, and the later of the two instants.

    ``None`` where it takes more to tell, or the record is of another *version*.
    """
    instants, is_bound, bond = instants.partition(BOND)
    try:
        said = _said(b'{"created":' + instants + b"}")
        whose = _bond(b"{" + BOND[1:] + bond + b"}") if is_bound else None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
    if said.version != version or CREATED[2:] in instants:
        return None
    return said.created, said.auth, whose, max(said.created, said.auth or 0.0)


def usual_of(migration: Migration, is_look_due: Callable[[str], bool] | None = None) -> Usual:
    """Return what reads the usual records of an application, which are of its own version.

    A record that belongs to a principal is not read where *is_look_due* says of its id that the
    session is to be looked at.
    """
    version, beginning = migration.version, migration.beginning
    is_due = is_look_due or _never
    # What a record says that says no more than when its session began: the version is missing.
    begin = _unversioned if version else _instant

    def usual(
        session_id: str, stored: Stored, cookie: CookieOptions, now: float
    ) -> SessionState | None:
        payload = stored.payload
        rest = payload.removeprefix(start_of(session_id))
        meta, _, framed = rest.partition(AFTER_META)
        revision, _, instants = meta.partition(CREATED)
        # With a quote in it, the revision is not all that stands there.
        if rest is payload or _QUOTE in revision or (len(payload) > SHORT and may_be_deep(payload)):
            return None
        try:
            data: Any = _decode(b"{" + framed.removeprefix(cookie.frame))
            # Of two keys that are the same the last one counts; a cookie of other options is in
            # the data.
            if COOKIE_KEY in data or RESERVED_KEY in data:
                return None
            if _COMMA not in instants:
                created_at = begin(instants)
                return (
                    None
                    if created_at > now
                    else SessionState(
                        session_id,
                        SessionCookie(cookie),
                        created_at,
                        data,
                        stored.version,
                        only_data=True,
                        instants=instants,
                    )
                )
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        said = _said_in(instants, version)
        if said is None:
            return None
        created_at, authenticated_at, bond, latest = said
        if latest > now or (bond is not None and is_due(session_id)):
            return None
        return SessionState(
            session_id,
            SessionCookie(cookie),
            created_at,
            data,
            stored.version,
            only_data=True,
            instants=instants,
            authenticated_at=authenticated_at,
            unknown=beginning,
            beginning=beginning,
            bond=bond,
            kept_bond=bond,
        )

    return usual


def _never(_session_id: str) -> bool:
    return False


def _unversioned(_instants: bytes) -> float:
    raise msgspec.ValidationError("the record does not say its version")
