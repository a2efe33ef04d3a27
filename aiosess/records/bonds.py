"""Whose a session is: what its record says of the principal, and of the device it is on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from aiosess.privacy import private
from aiosess.text import is_text

__all__ = ["BOND", "BOND_KEYS", "LONGEST_PRINCIPAL", "Bond", "bond_in", "check_principal", "cut"]

LONGEST_PRINCIPAL: Final = 256
"""So many characters a principal has at the most."""

# So many characters are kept of what only describes a session.
_LONGEST: Final = 200
# Each has an index of its own, which a login writes.
_MOST_LABELS: Final = 8


@private("handle")
class Bond(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What binds a session to its principal; the names are those in the record.

    - ``handle``: 16 characters that name the session to people, and are not its id.
    - ``principal``: who it belongs to.
    - ``bound``: when that began, in milliseconds of Unix time; later than each revocation that was
      known then.
    - ``label``: what the application calls it.
    - ``address``, ``agent``: where it logged in from, and with what.
    - ``labels``: what others know it by.
    """

    handle: str
    principal: str
    bound: int
    label: str | None = None
    address: str | None = None
    agent: str | None = None
    # The last, so that a usual record is cut where this ends: see usual.py.
    labels: dict[str, str] = {}

    @property
    def stamp(self) -> bytes:
        """How a usual record says it, behind when the session began."""
        return b"," + _encode(self)[1:-1]

    def in_meta(self) -> dict[str, Any]:
        """Return what a record says of it, by key."""
        said: dict[str, Any] = msgspec.to_builtins(self)
        return said


_encode: Final = msgspec.json.Encoder().encode

BOND_KEYS: Final = frozenset(Bond.__struct_fields__)
"""Under these keys a record says whose it is."""

BOND: Final = b',"handle":'
"""How that begins in a usual record."""


def bond_in(meta: dict[str, Any]) -> Bond | None:
    """Return what *meta* says of whose the session is; ``None`` where it is nobody's."""
    if "handle" not in meta:
        return None
    try:
        return msgspec.convert({key: meta[key] for key in BOND_KEYS & meta.keys()}, Bond)
    except msgspec.ValidationError:
        return None


def check_principal(principal: object) -> str:
    """Return *principal*; raise TypeError or ValueError for what cannot be one."""
    if not isinstance(principal, str):
        raise TypeError(
            f"a principal is a str, not {type(principal).__name__}: give str(...) of what names it"
        )
    if not is_text(principal) or not 1 <= len(principal) <= LONGEST_PRINCIPAL:
        raise ValueError(
            f"a principal is 1 to {LONGEST_PRINCIPAL} characters, without half of one, and this "
            f"has {len(principal)}: give what names the account, such as its key in a database"
        )
    # As it is kept: without what a class of the application's made of it.
    return str.__str__(principal)


def cut(text: object, name: str) -> str | None:
    """Return what is kept of *text*, which describes a session; TypeError where it is no str."""
    if text is None:
        return None
    if not isinstance(text, str):
        raise TypeError(f"{name} is a str, not {type(text).__name__}: give str(...)")
    # Half of a character cannot be kept.
    return text[:_LONGEST].encode("utf-8", "replace").decode()


def checked_labels(labels: object) -> dict[str, str]:
    """Return what is kept of *labels*; raise TypeError or ValueError for what cannot be kept."""
    if labels is None:
        return {}
    if not isinstance(labels, Mapping):
        raise TypeError(f"labels is a dict of str, not {type(labels).__name__}")
    given = cast("Mapping[object, object]", labels)
    if len(given) > _MOST_LABELS:
        raise ValueError(f"labels has {len(given)} entries: {_MOST_LABELS} can be kept")
    return {
        _text(name, "a label's name"): _text(given[name], f"labels[{name!r}]") for name in given
    }


def _text(text: object, name: str) -> str:
    kept = cut(text, name)
    if not kept:
        raise ValueError(f"{name} is {text!r}: give a str that is not empty")
    return kept
