"""Replace: only the version that was seen."""

# ruff: noqa: D401 - a docstring here is a promise about the storage

from __future__ import annotations

import asyncio
from typing import Final

from aiosess.errors import Conflict
from aiosess.storages import Storage
from aiosess.testing.contract.case import (
    LONG,
    Case,
    Misbehaviour,
    absent,
    conflict,
    expect,
    kept,
    new_id,
    promise,
    promise_over_time,
)
from aiosess.testing.contract.harness import Timeline

__all__ = ["REPLACING"]

_ROUNDS: Final = 20


@promise
async def replace_takes_the_version_of_a_load(storage: Storage) -> None:
    """Replace writes over the version that load returned."""
    session_id = new_id()
    await storage.create(session_id, b"one", LONG)
    seen = await kept(storage, session_id, b"one")

    await storage.replace(session_id, b"two", LONG, expected=seen.version)

    await kept(storage, session_id, b"two")


@promise
async def replace_takes_the_version_of_a_write(storage: Storage) -> None:
    """Replace writes over the version that create, or the replace before, returned."""
    session_id = new_id()

    first = await storage.create(session_id, b"one", LONG)
    second = await storage.replace(session_id, b"two", LONG, expected=first)
    await storage.replace(session_id, b"three", LONG, expected=second)

    await kept(storage, session_id, b"three")


@promise
async def a_write_returns_the_version_that_load_sees(storage: Storage) -> None:
    """The version that a write returned equals the one that load returns next, and has a hash."""
    session_id = new_id()

    created = await storage.create(session_id, b"one", LONG)
    loaded = (await kept(storage, session_id, b"one")).version
    replaced = await storage.replace(session_id, b"two", LONG, expected=created)
    reloaded = (await kept(storage, session_id, b"two")).version

    expect(created == loaded, f"create returned {created!r}, load then {loaded!r}")
    expect(replaced == reloaded, f"replace returned {replaced!r}, load then {reloaded!r}")
    expect(len({created, loaded, replaced, reloaded}) > 1, "every version is the same")


@promise
async def replace_changes_the_version(storage: Storage) -> None:
    """A version that was replaced by another payload never fits again."""
    session_id = new_id()
    first = await storage.create(session_id, b"one", LONG)
    second = await storage.replace(session_id, b"two", LONG, expected=first)

    await conflict(storage, session_id, first, "the version was replaced before")

    stored = await kept(storage, session_id, b"two")
    expect(stored.version == second, "the refused replace changed the version")


@promise
async def a_conflict_tells_what_is_kept_now(storage: Storage) -> None:
    """Conflict carries the payload and the version that are kept now, and that version fits."""
    session_id = new_id()
    first = await storage.create(session_id, b"one", LONG)
    await storage.replace(session_id, bytes(range(256)), LONG, expected=first)

    current = await conflict(storage, session_id, first, "the version was replaced before")

    if current is None:
        raise Misbehaviour("Conflict.current was None, though there is a record")
    expect(
        current.payload == bytes(range(256)),
        f"Conflict.current had {current.payload!r}, which is not the payload that is kept",
    )
    await storage.replace(session_id, b"three", LONG, expected=current.version)
    await kept(storage, session_id, b"three")


@promise_over_time
async def a_refused_replace_does_not_extend_life(storage: Storage, time: Timeline) -> None:
    """A replace that was refused does not change how long the record lives."""
    session_id = new_id()
    first = await storage.create(session_id, b"one", LONG)
    await storage.replace(session_id, b"two", 2 * time.unit, expected=first)

    await conflict(storage, session_id, first, "the version was replaced before")
    await time.wait(3 * time.unit)

    await absent(storage, session_id, "its ttl ran out; only a refused replace gave a longer one")


@promise
async def replace_never_creates(storage: Storage) -> None:
    """Replace under an id that no record has raises Conflict with None and creates nothing."""
    session_id, other_id = new_id(), new_id()
    version = await storage.create(other_id, b"another", LONG)

    current = await conflict(storage, session_id, version, "there is no record")

    expect(current is None, f"Conflict.current was {current!r}, though there is no record")
    await absent(storage, session_id, "only replace was called")


@promise
async def replace_never_revives_a_deleted_record(storage: Storage) -> None:
    """Replace of a record that was deleted raises Conflict with None, and it stays deleted."""
    session_id = new_id()
    version = await storage.create(session_id, b"cart", LONG)
    await storage.delete(session_id)

    current = await conflict(storage, session_id, version, "the record was deleted")

    expect(current is None, f"Conflict.current was {current!r}, though the record was deleted")
    await absent(storage, session_id, "it was deleted")


@promise_over_time
async def replace_never_revives_an_expired_record(storage: Storage, time: Timeline) -> None:
    """Replace of a record that has expired raises Conflict with None, and it stays absent."""
    session_id = new_id()
    version = await storage.create(session_id, b"cart", time.unit)
    await time.wait(2 * time.unit)

    current = await conflict(storage, session_id, version, "the record has expired")

    expect(current is None, f"Conflict.current was {current!r}, though the record has expired")
    await absent(storage, session_id, "it has expired")


@promise
async def a_version_dies_with_its_record(storage: Storage) -> None:
    """The version of a deleted record does not fit the next record under the same id."""
    session_id = new_id()
    version = await storage.create(session_id, b"old", LONG)
    await storage.delete(session_id)
    await storage.create(session_id, b"new", LONG)

    await conflict(storage, session_id, version, "that version was of a record deleted before")

    await kept(storage, session_id, b"new")


@promise
async def a_strange_version_fits_nothing(storage: Storage) -> None:
    """A version that the storage never gave is refused like an old one, whatever its type."""
    session_id = new_id()
    await storage.create(session_id, b"", LONG)

    await conflict(storage, session_id, None, "None is no version of it")
    await conflict(storage, session_id, "", "an empty str is no version of it")
    await conflict(storage, session_id, ("of", "another storage"), "no such version was given")

    await kept(storage, session_id, b"")


@promise
async def of_replaces_at_once_one_wins(storage: Storage) -> None:
    """Of many replaces of one version at the same time exactly one wins; the others conflict."""
    session_id = new_id()
    version = await storage.create(session_id, b"one", LONG)
    payloads = [b"by %d" % number for number in range(10)]

    results = await asyncio.gather(
        *(storage.replace(session_id, each, LONG, expected=version) for each in payloads),
        return_exceptions=True,
    )

    winners = [p for p, r in zip(payloads, results, strict=True) if not isinstance(r, Exception)]
    expect(len(winners) == 1, f"{len(winners)} of 10 replaces of one version succeeded")
    losers = [result for result in results if isinstance(result, Exception)]
    expect(
        all(isinstance(error, Conflict) for error in losers),
        f"the others must raise Conflict, not {losers!r}",
    )
    await kept(storage, session_id, winners[0])


@promise
async def replace_never_undoes_a_delete_at_the_same_time(storage: Storage) -> None:
    """After a replace and a delete at the same time there is no record, whoever was quicker."""
    for _ in range(_ROUNDS):
        session_id = new_id()
        version = await storage.create(session_id, b"cart", LONG)

        await asyncio.gather(
            storage.replace(session_id, b"more", LONG, expected=version),
            storage.delete(session_id),
            return_exceptions=True,
        )

        await absent(storage, session_id, "it was deleted while it was being replaced")


@promise_over_time
async def the_ttl_of_replace_counts(storage: Storage, time: Timeline) -> None:
    """From a replace on, the record lives as long as the replace said: longer, or shorter."""
    longer, shorter = new_id(), new_id()
    second = await storage.create(shorter, b"one", LONG)
    started = time.now()
    first = await storage.create(longer, b"one", 2 * time.unit)

    try:
        await storage.replace(longer, b"two", 8 * time.unit, expected=first)
    except Conflict:
        time.still_before(started + 2 * time.unit)
        raise
    await storage.replace(shorter, b"two", time.unit, expected=second)
    await time.wait(3 * time.unit)
    stored = await storage.load(longer)
    time.still_before(started + 8 * time.unit)

    expect(stored is not None, "the record ended with the ttl that it had before the replace")
    await absent(storage, shorter, "its replace gave a shorter ttl, which ran out")


REPLACING: Final[tuple[Case, ...]] = (
    replace_takes_the_version_of_a_load,
    replace_takes_the_version_of_a_write,
    a_write_returns_the_version_that_load_sees,
    replace_changes_the_version,
    a_conflict_tells_what_is_kept_now,
    a_refused_replace_does_not_extend_life,
    replace_never_creates,
    replace_never_revives_a_deleted_record,
    replace_never_revives_an_expired_record,
    a_version_dies_with_its_record,
    a_strange_version_fits_nothing,
    of_replaces_at_once_one_wins,
    replace_never_undoes_a_delete_at_the_same_time,
    the_ttl_of_replace_counts,
)
