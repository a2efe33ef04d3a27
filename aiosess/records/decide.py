"""What the end of a request means for the record and for the client: two tables, no I/O."""

from __future__ import annotations

import enum
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from aiosess.records.merge import MISSING, is_container
from aiosess.records.state import Intent, SessionState

__all__ = [
    "Action",
    "Ending",
    "Reply",
    "Rules",
    "authentication",
    "decide",
    "decide_reply",
    "ending",
    "is_login",
    "is_proof",
    "is_somebody",
]


# What stands under a key that says who is logged in, where nobody is; and the same, frozen.
_NOBODY: Final[tuple[object, ...]] = ("", {}, [])
_NOBODY_FROZEN: Final = (MISSING, None, "", b"{}", b"[]")


class Action(enum.Enum):
    """What is done to the record."""

    NOTHING = enum.auto()
    CREATE = enum.auto()
    """Keep it for the first time (and delete the record that regenerate() left)."""
    REPLACE = enum.auto()
    """Write what was changed."""
    TOUCH = enum.auto()
    """Only let it live longer."""
    RENEW = enum.auto()
    """Keep it under its new id, and leave something under the old one for a while."""
    DELETE = enum.auto()
    """Remove it."""


class Reply(enum.Enum):
    """What the response says of the session id."""

    LEAVE = enum.auto()
    """Nothing: the client has the right one."""
    SEND = enum.auto()
    """The id, and the cookie's attributes."""
    CLEAR = enum.auto()
    """That the client is to forget it."""

    def after(self, earlier: Reply) -> Reply:
        """Return what is to be done when *earlier* was due already."""
        return earlier if self is Reply.LEAVE else self


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What has a say at the end of a request beside the session itself.

    - ``resave``, ``rolling``, ``save_uninitialized``: the options, each as in express-session.
    - ``empty_is_none``: the storage takes a session without data for one that has ended.
    """

    resave: bool = False
    rolling: bool = False
    save_uninitialized: bool = False
    empty_is_none: bool = False

    @property
    def acts_on_reads(self) -> bool:
        """Whether a session that was only read is written, or its cookie sent, all the same."""
        return self.resave or self.rolling

    def again(self) -> Rules:
        """Return the rules for what is changed when the end of the request was met already."""
        return Rules(empty_is_none=self.empty_is_none)

    def at_once(self) -> Rules:
        """Return the rules for a session that the handler saves itself."""
        return Rules(save_uninitialized=True, empty_is_none=self.empty_is_none)


class Ending(NamedTuple):
    """How the handler left its session.

    - ``is_modified``: there is something to write.
    - ``is_stored``: there is a record, under this id or under the one before it.
    - ``is_empty``: there are no data.
    - ``is_touch_due``: the last touch that we know of was ``touch_after`` ago.
    - ``is_resigned``: the cookie came with a signature of an older secret.
    - ``is_saved``: the handler saved it itself.
    """

    intent: Intent = Intent.KEEP
    is_modified: bool = False
    is_stored: bool = False
    is_empty: bool = False
    is_touch_due: bool = False
    is_resigned: bool = False
    is_saved: bool = False

    def passive(self) -> Self:
        """Return how it was left by a request that is no activity: only what was changed counts."""
        return self._replace(is_touch_due=False, is_resigned=False)


def ending(
    state: SessionState, *, is_touch_due: bool, is_resigned: bool, is_saved: bool = False
) -> Ending:
    """Return how *state* was left. Raise UnserializableValue for what cannot be written."""
    state.gather()
    return Ending(
        intent=state.intent,
        is_modified=state.is_modified,
        is_stored=state.is_stored,
        is_empty=not state.data,
        is_touch_due=is_touch_due,
        is_resigned=is_resigned,
        is_saved=is_saved,
    )


def is_somebody(value: object) -> bool:
    """Ask whether *value*, under a key that says who is logged in, is anybody."""
    is_set = value is not MISSING and value is not None and value is not False
    return is_set and value not in _NOBODY


def authentication(state: SessionState, keys: Collection[str]) -> bool | None:
    """Return True where one of *keys* was given a new value, False where one was taken away.

    The keys say whose session it is. ``None`` where neither happened. Raise UnserializableValue for
    what cannot be written.
    """
    if state.originals.keys().isdisjoint(keys):
        return None
    values = [value for key, (_, value) in state.changes().items() if key in keys]
    if not values:
        return None
    return any(is_somebody(value) for value in values)


def is_proof(state: SessionState, keys: Collection[str]) -> bool:
    """Ask whether one of *keys* was given a value that says that somebody has just logged in.

    Where a dict or list was there before and another is there now, it may be a change inside, such
    as a new role of the same person. Raise UnserializableValue for what cannot be written.
    """
    changes = state.changes().items()
    return any(
        is_somebody(value) and not (is_container(value) and original not in _NOBODY_FROZEN)
        for key, (original, value) in changes
        if key in keys
    )


def is_login(state: SessionState, keys: Collection[str]) -> bool:
    """Ask whether one of *keys*, which say whose session it is, was given another value.

    The id that was known before must not lead to what is behind the login. False where it has
    changed already, and where there was none. Raise UnserializableValue for what cannot be written.
    """
    if state.version is None or state.intent not in {Intent.KEEP, Intent.EMPTY}:
        return False
    return authentication(state, keys) is True


def decide(end: Ending, rules: Rules) -> Action:
    """Return what to do with the record."""
    action = _decide(end, rules)
    if rules.empty_is_none and end.is_empty and action is not Action.NOTHING:
        return Action.DELETE if end.is_stored else Action.NOTHING
    return action


def _decide(end: Ending, rules: Rules) -> Action:
    is_wanted = end.is_modified or rules.save_uninitialized
    match end.intent:
        case Intent.KEEP if end.is_stored:
            return _keep(end, rules)
        case Intent.DESTROY:
            return Action.DELETE if end.is_stored else Action.NOTHING
        case Intent.EMPTY if end.is_empty:
            return Action.DELETE if end.is_stored else Action.NOTHING
        case Intent.RENEW | Intent.ROTATE if end.is_stored:
            return Action.RENEW
        case Intent.REGENERATE if end.is_stored and not is_wanted:
            return Action.DELETE
        case Intent.RENEW | Intent.ROTATE | Intent.REGENERATE:
            return Action.CREATE if is_wanted else Action.NOTHING
        case Intent.EMPTY if end.is_stored:
            return _keep(end, rules)
        case Intent.KEEP | Intent.EMPTY:
            return Action.CREATE if is_wanted else Action.NOTHING


def decide_reply(
    action: Action, end: Ending, rules: Rules, *, is_persistent: bool, is_alias: bool
) -> Reply:
    """Return what the client is told once *action* has succeeded.

    - *is_persistent*: the cookie has an end of its own, which a change moves on (as in Express; a
      cookie that lives as long as the browser is not sent again).
    - *is_alias*: the request came with an id that was renewed a moment ago.
    """
    match action:
        case Action.CREATE | Action.RENEW:
            return Reply.SEND
        case Action.DELETE:
            return Reply.CLEAR
        case _ if is_alias or not end.is_stored:
            # A browser that comes with an old id must never be given the new one.
            return Reply.LEAVE
        case Action.REPLACE if is_persistent and end.is_modified:
            return Reply.SEND
        case Action.REPLACE | Action.TOUCH | Action.NOTHING:
            is_due = rules.rolling or end.is_resigned
            return Reply.SEND if is_due else Reply.LEAVE


def _keep(end: Ending, rules: Rules) -> Action:
    if end.is_modified or (rules.resave and not end.is_saved):
        return Action.REPLACE
    # A cookie is sent again only for a record that is known to be there: touching tells.
    if end.is_touch_due or rules.rolling or end.is_resigned:
        return Action.TOUCH
    return Action.NOTHING
