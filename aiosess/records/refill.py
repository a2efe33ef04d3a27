"""New content for data that somebody holds: containers are changed in place, at every depth."""

from __future__ import annotations

from typing import Any

from aiosess.records.merge import MISSING, Data, is_alike, meaning

__all__ = ["refill"]


def refill(held: Data, wanted: Data) -> None:
    """Give *held* the content of *wanted*, and change what is inside it rather than replace it.

    A dict or list that stands at one path in both stays the same object, so that whoever holds it
    goes on with what stands there. An item of a list stays with what is equal to it, wherever
    that stands now. Else, in a list as long as before, it becomes what is in its place.

    An object that stands at several paths gets the content of the first; where the others want
    another, it is replaced. Parts of *wanted* become parts of *held*.
    """
    _refilled(held, wanted, set())


def _refilled(held: Any, wanted: Any, done: set[int]) -> Any:
    """Return *held* with the content of *wanted*, or *wanted* where it cannot be changed so."""
    kind = _kind(held)
    if kind is None or kind is not _kind(wanted):
        return wanted
    if id(held) in done:
        return held if is_alike(held, wanted) else wanted
    done.add(id(held))
    (_refill_dict if kind is dict else _refill_list)(held, wanted, done)
    return held


def _kind(value: object) -> type | None:
    return next((kind for kind in (dict, list) if isinstance(value, kind)), None)


def _refill_dict(held: Data, wanted: Data, done: set[int]) -> None:
    content = {key: _refilled(held.get(key, MISSING), value, done) for key, value in wanted.items()}
    held.clear()
    held.update(content)


def _refill_list(held: list[Any], wanted: list[Any], done: set[int]) -> None:
    pairs = zip(_matching(held, wanted), wanted, strict=True)
    held[:] = [_refilled(item, value, done) for item, value in pairs]


def _matching(held: list[Any], wanted: list[Any]) -> list[Any]:
    """Return, for each item of *wanted*, the item of *held* that becomes it; MISSING: none does."""
    left: dict[bytes, list[Any]] = {}
    for item in reversed(held):
        left.setdefault(meaning(item), []).append(item)
    alike = (left.get(meaning(item)) for item in wanted)
    found = [items.pop() if items else MISSING for items in alike]
    if len(held) != len(wanted):
        return found
    # As many as before: what is like none was changed where it stands.
    unmatched = {id(item) for items in left.values() for item in items}
    return [
        before if item is MISSING and id(before) in unmatched else item
        for item, before in zip(found, held, strict=True)
    ]
