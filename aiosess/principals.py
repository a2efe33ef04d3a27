"""The sessions of a principal: listed as devices are, ended one by one or all at once, limited.

::

    options = SessionOptions(secret=...)
    principals = Principals(options, max_sessions=20)
    setup(app, options)

A handler says ``await session.bind("user-42")`` at login; all else is asked of ``principals``.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import cast

from aiohttp_session import AbstractStorage

from aiosess.errors import OptionsError, StorageError
from aiosess.events import Events
from aiosess.exchange.manager import breaker_of, repository_of
from aiosess.options import SessionOptions
from aiosess.privacy import private
from aiosess.records.bonding import MOST_SESSIONS, Bonds, Evict, Limits, Listed
from aiosess.records.bonds import Bond, check_principal, checked_labels
from aiosess.records.indexes import key_of_label, key_of_principal
from aiosess.records.looking import notice_of
from aiosess.session import Session, state_of
from aiosess.storages.base import as_notifying

__all__ = ["Principals", "SessionInfo"]

_EVICT = ("oldest", "idle", "reject")


@private("handle", "is_current")
@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session that is alive, for people to see; instants are Unix time.

    - ``handle``: names it, and is not its id.
    - ``created_at``: when it began; ``authenticated_at``: when somebody last logged in.
    - ``last_seen_at``: when somebody last came with it, to within ``touch_after``.
    - ``label``, ``labels``: what ``bind()`` was told.
    - ``address``, ``user_agent``: where the login came from, and with what.
    - ``is_current``: whether it is the one that was given as such.
    """

    handle: str
    created_at: float
    authenticated_at: float | None
    last_seen_at: float
    label: str | None
    address: str | None
    user_agent: str | None
    labels: dict[str, str]
    is_current: bool


class Principals:
    """The sessions of an application by the principals that they belong to.

    - *options*: those of the application, which are given to ``setup`` afterwards.
    - *max_sessions*: how many a principal may have, from 1 to 1,000.
    - *evict*: which ends where a login would be one too many: the ``"oldest"`` login, the one that
      was ``"idle"`` for longest; or ``"reject"``: the login raises TooManySessions.

    Each method raises StorageUnavailable after all retries, and MergeConflict where others changed
    what a principal has too often meanwhile. Raise OptionsError for an option that
    makes no sense, where *options* have Principals already, and where they are in use.
    """

    def __init__(
        self, options: SessionOptions, *, max_sessions: int = 100, evict: Evict = "oldest"
    ) -> None:
        limits = Limits(_checked(max_sessions), _checked_evict(evict))
        storage = options.storage
        if isinstance(storage, AbstractStorage):
            raise OptionsError(
                f"{type(storage).__name__} is a storage of aiohttp-session, which keeps no "
                "principals: use one of aiosess.storages"
            )
        seat = options.plan.records.seat
        if seat.limits is not None:
            raise OptionsError("these options have Principals already: use those")
        if seat.is_in_service:
            raise OptionsError(
                "these options are in use: make Principals(options) before setup(app, options)"
            )
        seat.limits = limits
        events = Events(options.on_event, options.clock)
        breaker = breaker_of(options, events)
        _, repository = repository_of(options, storage, breaker, events)
        repository.on_end = self._tell
        self._seat = seat
        self._notifying = as_notifying(repository.storage)
        # What is still to be told to other processes, where nobody serves sessions in this one.
        self._untold: list[bytes] = []
        # The seat has its limits.
        self._bonds: Bonds = cast("Bonds", repository.bonds)

    async def sessions_of(
        self, principal: str, *, current: Session | None = None
    ) -> list[SessionInfo]:
        """Return the sessions of *principal* that are alive, those first that were last seen.

        Empty where there is none. *current* is the one of which ``is_current`` says so.
        """
        check_principal(principal)
        live = await self._bonds.sessions(key_of_principal(principal), partial(_is_of, principal))
        handle = None if current is None else current.handle
        found = [_info(each, is_current=each.live.bond.handle == handle) for each in live.values()]
        return sorted(found, key=lambda info: -info.last_seen_at)

    async def end(self, principal: str, handle: str) -> bool:
        """End the session of *principal* that is called *handle*; False where it has none such.

        A *handle* of somebody else's session ends nothing, so that a page may take it from a form.
        """
        check_principal(principal)
        async with self._telling():
            return await self._bonds.end_one(principal, handle)

    async def revoke(self, principal: str, *, keep: Session | None = None) -> int:
        """End all sessions of *principal* but *keep*; return how many were alive.

        One that the back-end has lost sight of ends when somebody next comes with it, at the latest
        ``touch_after`` from now. Where the storage does not answer, a note at the error says how
        many have ended, and calling it again ends the others.
        """
        key = key_of_principal(check_principal(principal))
        kept = None if keep is None else state_of(keep)
        async with self._telling():
            return await self._bonds.revoke(key, partial(_is_of, principal), kept)

    async def revoke_label(self, name: str, value: str) -> int:
        """End all sessions that were bound with that label; return how many were alive.

        For a back-channel logout: ``await principals.revoke_label("oidc_sid", sid)``.
        """
        ((name, value),) = checked_labels({name: value}).items()
        key = key_of_label(name, value)
        async with self._telling():
            return await self._bonds.revoke(key, lambda bond: bond.labels.get(name) == value)

    def _tell(self, session_id: str) -> None:
        if not self._seat.tell(session_id) and self._notifying is not None:
            self._untold.append(notice_of(session_id))

    @asynccontextmanager
    async def _telling(self) -> AsyncGenerator[None]:
        """Tell other processes what ended in the block, where nobody does who serves sessions."""
        try:
            yield
        finally:
            untold, self._untold = self._untold, []
            if self._notifying is not None:
                # Without it, they notice when they look.
                with suppress(StorageError):
                    for notice in untold:
                        await self._notifying.publish(notice)


def _is_of(principal: str, bond: Bond) -> bool:
    return bond.principal == principal


def _info(listed: Listed, *, is_current: bool) -> SessionInfo:
    record, bond = listed.live.record, listed.live.bond
    seen = listed.entry.seen
    return SessionInfo(
        handle=bond.handle,
        created_at=seen if record.created_at is None else record.created_at,
        authenticated_at=record.authenticated_at,
        last_seen_at=seen,
        label=bond.label,
        address=bond.address,
        user_agent=bond.agent,
        labels=dict(bond.labels),
        is_current=is_current,
    )


def _checked(most: object) -> int:
    if not isinstance(most, int) or isinstance(most, bool) or not 1 <= most <= MOST_SESSIONS:
        raise OptionsError(
            f"max_sessions={most!r} must be a whole number from 1 to {MOST_SESSIONS:,}: each login "
            "writes them all"
        )
    return most


def _checked_evict(evict: Evict) -> Evict:
    if evict not in _EVICT:
        listed = ", ".join(repr(each) for each in _EVICT)
        raise OptionsError(f"evict={evict!r} must be one of {listed}")
    return evict
