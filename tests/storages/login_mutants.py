"""What becomes of old ids and of changes at once, broken on purpose, each in one place."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from aiosess.records import conflicts, merge, renewal, repository
from tests.lanes.mutants import Mutant, mutated

__all__ = ["MUTANTS", "Broken"]


@dataclass(frozen=True, slots=True)
class Broken:
    """*name* of *module*, as *mutant* makes it, is put into the module *place*."""

    mutant: Mutant
    module: ModuleType
    name: str
    place: ModuleType

    def __str__(self) -> str:
        return str(self.mutant)

    def made(self) -> Any:
        """Return what is put in."""
        return getattr(mutated(self.mutant, self.module), self.name)


def renewing(forgets: str, old: str, new: str) -> Broken:
    return Broken(Mutant(forgets, old, new), renewal, "Renewal", repository)


def conflicting(forgets: str, old: str, new: str) -> Broken:
    return Broken(Mutant(forgets, old, new), conflicts, "Conflicts", repository)


def merging(name: str, forgets: str, old: str, new: str) -> Broken:
    return Broken(Mutant(forgets, old, new), merge, name, merge)


MUTANTS: Final = (
    renewing(
        "that a login leaves a view and no way",
        "self._move(state, previous, self._former(shown, state.session_id, state))",
        "self._move(state, previous, Alias(state.session_id, self._lifetime.now() + 3600))",
    ),
    renewing(
        "what others wrote until the login",
        "            self._rebase(state, found.record, state.version)\n",
        "",
    ),
    renewing(
        "that a session may have ended while its id changes",
        "            if not isinstance(found, Found):\n                return None\n",
        "            if not isinstance(found, Found):\n                return written\n",
    ),
    renewing(
        "that nobody ends the session of another",
        "            if isinstance(found, Former) and not found.is_same_principal:\n"
        "                raise superseded()\n",
        "",
    ),
    renewing(
        "that one who was not logged in ends nothing",
        "if not isinstance(found, Former) or not found.is_same_principal:",
        "if not isinstance(found, Former):",
    ),
    renewing(
        "that a view ends once the new id is used",
        "if former.until <= now + self._grace:",
        "if True:",
    ),
    renewing(
        "that a session may be rotated while somebody logs in",
        "            return isinstance(left, Alias)\n        case Standing.FORMER",
        "            return True\n        case Standing.FORMER",
    ),
    renewing(
        "to remove what a rotation that was given up has written",
        "        await self._storage.delete(state.session_id)\n        if outcome is None:",
        "        if outcome is None:",
    ),
    conflicting(
        "that a view is not written on",
        "            if found.standing is Standing.FORMER:\n"
        "                self.drop(state)\n"
        "                return True\n",
        "",
    ),
    conflicting(
        "that a view is not counted in",
        "                    self.drop(state)\n                    raise superseded()\n",
        "                    pass\n",
    ),
    conflicting(
        "under which id a session goes on",
        "            go_on_under(state, found)\n            self.rebase(state, found.record",
        "            self.rebase(state, found.record",
    ),
    Broken(
        Mutant(
            "that a time of grace ends",
            "stored, is_by_client=True)",
            "stored)",
        ),
        repository,
        "SessionRepository",
        repository,
    ),
    Broken(
        Mutant(
            "to tell which change lost",
            "            self._events.tell(Reason.CHANGE_LOST, key=key, side=side)\n",
            "            pass\n",
        ),
        conflicts,
        "Rebase",
        repository,
    ),
    merging(
        "_merged_lists",
        "what others added to a list",
        " + others[their_new:]",
        "",
    ),
)
