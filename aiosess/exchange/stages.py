"""Where an exchange is: two small machines and their moves, as tables.

::

    Opening   UNASKED ──get_session──▶ ASKED ──read──▶ OPEN
              (where reading failed it stays ASKED, and the next one who asks tries again)

    Commit    PENDING ──end──▶ BEGUN ──written──▶ DONE ──changed again──▶ BEGUN ...
                 ▲               │
                 │               ├── it failed: it stays BEGUN, and is not tried again
                 │               └── its task was cancelled: PENDING, in a task of its own
                 │
                 └──asked for again── NEVER ◀── the handler failed, in any of them

They are two, because a middleware outside of ours may open a session whose handler has failed.
"""

from __future__ import annotations

import enum
from typing import Final, TypeVar

__all__ = ["Commit", "Opening", "moved"]


class Opening(enum.IntEnum):
    """How far the session of an exchange is opened; as long as nobody asked, that is false."""

    UNASKED = 0
    """Nobody asked for it."""
    ASKED = 1
    """The record is being read."""
    OPEN = 2
    """The session is there, or it is known that there can be none."""


class Commit(enum.Enum):
    """How far what was done to the session is kept."""

    PENDING = enum.auto()
    """The handler is under way."""
    BEGUN = enum.auto()
    """The record is being written; or it could not be, and is not tried again by itself."""
    DONE = enum.auto()
    """The record is written, and the response knows what the client is to be told."""
    NEVER = enum.auto()
    """The handler failed: nothing is kept."""


S = TypeVar("S", Opening, Commit)

_MOVES: Final[dict[Opening | Commit, frozenset[Opening | Commit]]] = {
    Opening.UNASKED: frozenset({Opening.ASKED}),
    Opening.ASKED: frozenset({Opening.ASKED, Opening.OPEN}),
    Opening.OPEN: frozenset({Opening.OPEN}),
    Commit.PENDING: frozenset({Commit.BEGUN, Commit.NEVER}),
    Commit.BEGUN: frozenset({Commit.PENDING, Commit.BEGUN, Commit.DONE, Commit.NEVER}),
    Commit.DONE: frozenset({Commit.BEGUN, Commit.NEVER}),
    Commit.NEVER: frozenset({Commit.NEVER, Commit.PENDING}),
}


def moved(stage: S, to: S) -> S:
    """Return *to*; RuntimeError where an exchange cannot go there from *stage*."""
    if to not in _MOVES[stage]:
        raise RuntimeError(f"{type(to).__name__} cannot become {to.name}: it is {stage.name}")
    return to
