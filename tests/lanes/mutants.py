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


MUTANTS: Final = (
    # Open.
    Mutant(
        "that a clone of the request may ask",
        "            and self._request() is request\n",
        "",
    ),
    Mutant(
        "that the handler may have failed",
        "            and self.stage is _PENDING\n",
        "",
        first=919,
    ),
    Mutant(
        "that a cookie's name may end as ours does",
        'if signed is None or (before and before.removesuffix("; ") is before):',
        "if signed is None:",
    ),
    Mutant(
        "that a storage may touch as it reads",
        "if short.is_touching and short.is_touch_due(session_id):",
        "if False:",
    ),
    Mutant(
        "whose a record is",
        "usual(session_id, stored, cookie",
        "usual(session_id, stored._replace(payload=start_of(session_id) + stored.payload[41:]), "
        "cookie",
        first=262,
    ),
    Mutant(
        "which version of the application wrote a record",
        "repository.migration, None",
        "type(repository.migration)(), None",
        first=636,
    ),
    Mutant(
        "that a record says which version of the application wrote it",
        "version = version_of(state.unknown)",
        "version = 0",
        first=2550,
    ),
    Mutant(
        "that a record says whose it is",
        "version, state.bond)",
        "version)",
        first=800,
    ),
    Mutant(
        "that a session is looked up in its index now and then",
        "bonds.looked.is_due",
        "lambda _id: False",
        first=100,
    ),
    Mutant(
        "what a newer version remembers",
        "            or (state.unknown and state.unknown != state.beginning)\n",
        "",
    ),
    Mutant(
        "that the connection may be encrypted",
        "cookie = short.cookies[is_tls]",
        "cookie = short.cookies[False]",
    ),
    Mutant(
        "that a new session has to be created",
        "            state.is_new\n            or state.standing",
        "            state.standing",
    ),
    Mutant(
        "that a session may have attributes of its own",
        "            or state.cookie.own\n            or state.former_id",
        "            or state.former_id",
    ),
    Mutant(
        "that the storage may not answer a read",
        "            await self.do_without(request, error, required=required)\n",
        "            self.absent = error\n",
    ),
    Mutant(
        "that another cookie may lead to a record where the first does not",
        "found = await self._first_kept(request, cookie, but=self.came, refused=found)\n",
        "pass\n",
    ),
    # End.
    Mutant(
        "that more may have been done than to change data",
        "if state is None or session is None or not state.only_data or self.has_left:",
        "if state is None or session is None or self.has_left:",
    ),
    Mutant(
        "that somebody may have taken the session out of the request",
        "if self._request()[SESSION] is not session:",
        "if self._request() is None:",
        first=860,
    ),
    Mutant(
        "to renew the id at a login",
        "if is_alone and is_next and state.originals.keys().isdisjoint(short.renew_on):",
        "if is_alone and is_next:",
        first=447,
    ),
    Mutant(
        "to touch the record of a session that was only read",
        "        if short.is_touch_due(state.session_id):\n"
        "            return self.commit(response)\n",
        "",
        first=184,
    ),
    Mutant(
        "Vary where no signal tells of the headers",
        "        self.has_left = True\n        vary_by_cookie(response)\n",
        "        self.has_left = True\n",
    ),
    # Keep the data.
    Mutant(
        "how large a record may be",
        "payload = encoded if len(encoded) in short.sizes else short.encoded(state)",
        "payload = encoded or short.encoded(state)",
        first=2679,
    ),
    Mutant(
        "that most cookies are not sent again",
        "elif changed and state.cookie.base.max_age is not None:",
        "elif changed:",
    ),
    Mutant(
        "that a cookie with an end is sent again",
        "self.due = _SEND if state.standing is _LIVE else _LEAVE",
        "self.due = _LEAVE",
        first=187,
    ),
    Mutant(
        "that an old id never gets the new one",
        "self.due = _SEND if state.standing is _LIVE else _LEAVE",
        "self.due = _SEND",
        first=725,
    ),
    Mutant(
        "to touch the record where a change was undone",
        "elif short.is_touch_due(state.session_id):",
        "elif False:",
    ),
    Mutant(
        "that the record may be gone",
        "        if not is_kept:\n            self._drop_changes()\n        elif changed",
        "        if changed",
        first=675,
    ),
    Mutant(
        "to finish what was interrupted",
        "self.finish(self.manager.rules, has_left=False)\n",
        "pass\n",
    ),
    Mutant(
        "to let the next task have its turn",
        "            else:\n                self.pass_on()\n            self.session = None",
        "            self.session = None",
        first=1590,
    ),
    Mutant(
        "to answer an outage as the options say",
        "            self._lose(outage, has_left=False)\n",
        "",
    ),
    Mutant(
        "to let go of the session",
        "            self.session = None\n            state.past = _CONCLUDED\n"
        "        if not is_kept",
        "            pass\n        if not is_kept",
    ),
    Mutant(
        "that others may have been quicker",
        "is_kept = await spend(spent, resolve, state, error, payload, snapshot)",
        "is_kept = False",
        first=181,
    ),
    Mutant(
        "that a write is a touch",
        "                short.touched(state.session_id)\n",
        "",
        first=1204,
    ),
    # Let go.
    Mutant(
        "that another response may leave than the one that was committed",
        "            or self.told_on is not response\n",
        "",
        first=1209,
    ),
    Mutant(
        "that data may change once more before the headers leave",
        "            or state.originals\n        ):\n            return super().let_go(response)",
        "        ):\n            return super().let_go(response)",
        first=201,
    ),
    Mutant(
        "that more may be done before the headers leave",
        "            or not state.only_data\n            or state.originals",
        "            or state.originals",
    ),
    Mutant(
        "that a Vary may have been written since",
        "        vary_by_cookie(response)\n        self.has_left = True\n        return True",
        "        self.has_left = True\n        return True",
    ),
    # The options.
    Mutant(
        "that sessions may have an absolute end",
        "            and options.absolute_timeout is None\n",
        "",
        first=2749,
    ),
    Mutant(
        "that options may ask for more where a session was only read",
        "            and not options.plan.rules.acts_on_reads\n",
        "",
    ),
)
