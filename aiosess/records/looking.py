"""Looks at sessions that somebody watches, and changes nothing: a look is no touch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from aiosess.attributes import CookieOptions
from aiosess.events import Reason
from aiosess.privacy import private
from aiosess.records.aliases import Aliases, Found
from aiosess.records.decide import is_somebody
from aiosess.records.format import Alias, Former, Record
from aiosess.records.lifetime import Lifetime
from aiosess.records.merge import MISSING
from aiosess.records.state import SessionState
from aiosess.storages import Storage

__all__ = ["Looking", "Sight", "notice_of"]

_NOTICE_LENGTH: Final = 32


def notice_of(session_id: str) -> bytes:
    """Return what processes tell each other of a session: a hash, which leads to no id."""
    digest = hashlib.sha256(b"ended:" + session_id.encode("utf-8", "surrogatepass"))
    return digest.hexdigest()[:_NOTICE_LENGTH].encode()


@private("until")
@dataclass(slots=True, eq=False)
class Sight:
    """A session that is watched, as it was seen last.

    - ``session_id``: under which it lives.
    - ``cookie``: its attributes, as the options give them.
    - ``principal``: who is logged in, by those of the keys in ``renew_on`` that have a value.
    - ``until``: when it has ended if nobody touches it after it was seen, by the steady clock.
    - ``may_end_at``: before that, it cannot have expired; by the steady clock.
    """

    session_id: str
    cookie: CookieOptions
    principal: dict[str, Any]
    until: float
    may_end_at: float


# So often a session that is watched may have taken a new id since it was looked at.
_MOST_ROTATIONS: Final = 100


class Looking:
    """Tells of a session that is watched whether it lives on, and under which id."""

    def __init__(
        self,
        storage: Storage,
        aliases: Aliases,
        lifetime: Lifetime,
        *,
        state_of: Callable[[Found, CookieOptions], SessionState],
        principal_keys: frozenset[str],
    ) -> None:
        self._storage = storage
        self._aliases = aliases
        self._lifetime = lifetime
        self._state_of = state_of
        self._principal_keys = principal_keys

    def begin(self, state: SessionState) -> Sight:
        """Return how *state*, which has a record, is seen now."""
        now, left = self._lifetime.steady(), self._lifetime.ttl(state)
        return Sight(
            state.session_id,
            state.cookie.base,
            self._principal_of(state),
            until=now + left,
            may_end_at=now + left - self._lifetime.touch_after,
        )

    async def look(self, sight: Sight, *, is_told: bool = False) -> Reason | None:
        """Return why the session ended; ``None``: it lives on, and *sight* says how.

        *is_told*: somebody said that something happened to it, so that it did not just expire.
        Raise StorageUnavailable when the storage does not answer.
        """
        session_id = sight.session_id
        for _ in range(_MOST_ROTATIONS):
            stored = await self._storage.load(session_id)
            match self._aliases.read(stored):
                case Record() as record if stored is not None:
                    found = self._aliases.found(session_id, record, stored.version)
                    if found is None:
                        return self._gone(sight, is_told=is_told)
                    return self._seen(sight, found)
                case Former() as former:
                    if not former.is_same_principal:
                        return Reason.TAKEN_OVER
                    session_id = former.moved_to
                case Alias() as alias if alias.renewed_to:
                    session_id = alias.renewed_to
                case Alias():
                    return Reason.ENDED
                case _:
                    return self._gone(sight, is_told=is_told)
        return Reason.ENDED

    def is_over(self, sight: Sight) -> bool:
        """Ask whether *sight*, which nobody could look at again, has ended by now."""
        return self._lifetime.steady() >= sight.until

    def _seen(self, sight: Sight, found: Found) -> Reason | None:
        state = self._state_of(found, sight.cookie)
        if self._lifetime.is_over(state):
            return Reason.EXPIRED
        sight.session_id = found.session_id
        sight.principal = self._principal_of(state)
        sight.until = self._lifetime.steady() + self._lifetime.ttl(state)
        return None

    def _principal_of(self, state: SessionState) -> dict[str, Any]:
        kept = {key: _as_kept(state, key) for key in self._principal_keys}
        return {key: value for key, value in kept.items() if is_somebody(value)}

    def _gone(self, sight: Sight, *, is_told: bool) -> Reason:
        may_have_expired = not is_told and self._lifetime.steady() >= sight.may_end_at
        return Reason.EXPIRED if may_have_expired else Reason.ENDED


def _as_kept(state: SessionState, key: str) -> Any:
    """Return the value of *key* as the record has it; MISSING where it has none."""
    if key in state.originals:
        return state.values.thaw(state.originals[key])
    return state.data.get(key, MISSING)
