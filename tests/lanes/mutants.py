"""Fast lanes that are broken on purpose, each in one place."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from types import ModuleType
from typing import Final

from tests.lanes.lanes import SHORTCUTS

__all__ = ["MUTANTS", "Mutant", "mutated"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """What is forgotten, and the text in the place of which another one stands.

    To look for it from the seed *first* on saves time, and does nothing else.
    """

    forgets: str
    old: str
    new: str
    first: int = 0

    def __str__(self) -> str:
        return self.forgets


def mutated(mutant: Mutant, module: ModuleType = SHORTCUTS) -> ModuleType:
    """Return *module* as it would be with the text of *mutant*; nobody else sees it.

    Raise LookupError unless the old text stands in the module just once.
    """
    source = inspect.getsource(module)
    found = source.count(mutant.old)
    if found != 1:
        raise LookupError(
            f"the mutant that forgets {mutant.forgets!r}: its old text stands {found} times in "
            f"{module.__name__}, and must stand there once: {mutant.old!r}"
        )
    copy = ModuleType(module.__name__)
    code = compile(source.replace(mutant.old, mutant.new), f"<forgets {mutant}>", "exec")
    exec(code, copy.__dict__)  # noqa: S102 - it is our own source, but for one place
    return copy


_PASSED_ON: Final = """\
                self._is_busy = False
            else:
                self._pass_on()
"""

MUTANTS: Final = (
    Mutant(
        "that somebody may have taken the session out of the request",
        "if state is None or not state.is_plain or not self._is_held():",
        "if state is None or not state.is_plain:",
    ),
    Mutant(
        "to touch the record of a session that was only read",
        "if state.originals or self._sessions.keeper.is_due(state.session_id):",
        "if state.originals:",
    ),
    Mutant(
        "to renew the id at a login",
        "if is_in_time and state.originals.keys().isdisjoint(self._sessions.options.renew_on):",
        "if is_in_time:",
    ),
    Mutant(
        "that the record may be gone",
        "is_kept = await keeper.write(state)",
        "is_kept = await keeper.write(state) or True",
        first=242,
    ),
    Mutant(
        "that an old id never gets the new one",
        "elif is_modified and state.cookie.is_persistent and not state.is_alias:",
        "elif is_modified and state.cookie.is_persistent:",
        first=725,
    ),
    Mutant(
        "that most cookies are not sent again",
        "elif is_modified and state.cookie.is_persistent and not state.is_alias:",
        "elif is_modified and not state.is_alias:",
    ),
    Mutant(
        "that a cookie with an end is sent again",
        "elif is_modified and state.cookie.is_persistent and not state.is_alias:",
        "elif False:",
    ),
    Mutant(
        "to touch the record where a change was undone",
        "is_kept = not keeper.is_touch_due(state) or await",
        "is_kept = True or await",
    ),
    Mutant(
        "that a middleware outside may change what was only read",
        "self._is_settled = self._is_committed = True",
        "self._is_settled = True",
        first=514,
    ),
    Mutant(
        "Vary where no signal tells of the headers",
        "            vary_by_cookie(response)\n        return None",
        "            pass\n        return None",
    ),
    Mutant(
        "that a cookie signed by an old secret is sent anew",
        "elif sessions.acts_on_reads or not (signed and signed.is_current):",
        "elif sessions.acts_on_reads:",
    ),
    Mutant(
        "that options may ask for more where a session was only read",
        "elif sessions.acts_on_reads or not (signed and signed.is_current):",
        "elif not (signed and signed.is_current):",
    ),
    Mutant(
        "that data may change once more before the headers leave",
        "            if state.originals:\n                return False",
        "            if state.originals:\n                pass",
    ),
    Mutant(
        "that another response may leave than the one that was committed",
        "        if self.sent_on is not response:\n            return False",
        "        if self.sent_on is not response:\n            pass",
    ),
    Mutant(
        "to let the next task have its turn",
        f"{_PASSED_ON}        self.sent_on = response",
        "                self._is_busy = False\n        self.sent_on = response",
        first=404,
    ),
    Mutant(
        "to answer an outage as the options say",
        "            self._without_storage(error)\n        finally:\n"
        f"            if self._waiters is None:\n{_PASSED_ON}        self.sent_on = response",
        "            _ = error\n        finally:\n"
        f"            if self._waiters is None:\n{_PASSED_ON}        self.sent_on = response",
    ),
)
