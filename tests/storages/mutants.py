"""Storages that are broken on purpose: one for each case of the contract, in just that way."""

from __future__ import annotations

import asyncio
import unicodedata
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

from aiosess.errors import Conflict, IdTaken
from aiosess.storages import MemoryStorage, Stored, Version
from aiosess.storages.memory import _Entry

__all__ = ["MUTANTS"]

YEAR: Final = 365 * 86_400.0

MUTANTS: Final[dict[str, type[MemoryStorage]]] = {}
"""For each case's name the storage that it must catch."""


def breaks(case: str) -> Callable[[type[MemoryStorage]], type[MemoryStorage]]:
    """Enter a mutant for *case*."""

    def enter(mutant: type[MemoryStorage]) -> type[MemoryStorage]:
        assert case not in MUTANTS
        MUTANTS[case] = mutant
        return mutant

    return enter


class Mutant(MemoryStorage):
    """A MemoryStorage, and how the mutants get at its records."""

    def _entry(self, session_id: str) -> _Entry | None:
        """Return what is kept, whether expired or not."""
        return self._shard(session_id).get(session_id)

    def _ttl_left(self, session_id: str) -> float:
        return self._shard(session_id)[session_id].expires_at - self._clock()

    def _is_there(self, session_id: str) -> bool:
        return self._find(session_id, self._clock()) is not None

    async def _put(self, session_id: str, payload: bytes, ttl: float) -> Version:
        """Write whatever is there."""
        await super().delete(session_id)
        return await super().create(session_id, payload, ttl)


# Create.


@breaks("create_keeps_the_payload")
class StripsThePayload(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return await super().create(session_id, payload[:-1], ttl)


@breaks("create_never_overwrites")
class Overwrites(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return await self._put(session_id, payload, ttl)


@breaks("a_refused_create_does_not_extend_life")
class RefusedCreateTouches(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        try:
            return await super().create(session_id, payload, ttl)
        except IdTaken:
            await self.touch(session_id, ttl)
            raise


@breaks("create_takes_the_id_of_an_expired_record")
class ExpiredIdsAreTaken(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        if self._entry(session_id) is not None:
            raise IdTaken
        return await super().create(session_id, payload, ttl)

    def _sweep(self, now: float) -> None:
        pass


@breaks("create_takes_the_id_of_a_deleted_record")
class OldEndsRemoveNewRecords(Mutant):
    async def delete(self, session_id: str) -> bool:
        was_there = self._is_there(session_id)
        self._shard(session_id).pop(session_id, None)
        return was_there

    def _look(self, session_id: str, _now: float) -> None:
        self._remove(session_id)


@breaks("of_creates_at_once_one_wins")
class LooksThenCreates(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        if await self.load(session_id) is not None:
            raise IdTaken
        await asyncio.sleep(0)
        return await self._put(session_id, payload, ttl)


# Load.


@breaks("load_of_an_absent_record_is_none")
class LoadCreates(Mutant):
    async def load(self, session_id: str) -> Stored | None:
        stored = await super().load(session_id)
        if stored is None:
            await self.create(session_id, b"", 60)
        return stored


@breaks("every_byte_survives")
class KeepsText(Mutant):
    async def load(self, session_id: str) -> Stored | None:
        stored = await super().load(session_id)
        if stored is None:
            return None
        return Stored(stored.payload.decode(errors="replace").encode(), stored.version)


@breaks("an_empty_payload_survives")
class EmptyIsAbsent(Mutant):
    async def load(self, session_id: str) -> Stored | None:
        stored = await super().load(session_id)
        return stored if stored and stored.payload else None


@breaks("a_large_payload_survives")
class HasShortRecords(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return await super().create(session_id, payload[:65_535], ttl)


@breaks("load_changes_nothing")
class EachLoadHasItsOwnVersion(Mutant):
    async def load(self, session_id: str) -> Stored | None:
        stored = await super().load(session_id)
        return None if stored is None else Stored(stored.payload, object())


@breaks("load_does_not_extend_life")
class LoadTouches(Mutant):
    async def load(self, session_id: str) -> Stored | None:
        await self.touch(session_id, 3600)
        return await super().load(session_id)


# Replace.


@breaks("replace_takes_the_version_of_a_load")
class OnlyWritersMayReplace(Mutant):
    async def load(self, session_id: str) -> Stored | None:
        stored = await super().load(session_id)
        return None if stored is None else Stored(stored.payload, ("loaded", stored.version))


@breaks("replace_takes_the_version_of_a_write")
class OnlyReadersMayReplace(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return ("created", await super().create(session_id, payload, ttl))


@breaks("a_write_returns_the_version_that_load_sees")
class WritersHaveWeakVersions(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return (await super().create(session_id, payload, ttl),)

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        plain = expected[0] if isinstance(expected, tuple) else expected
        return (await super().replace(session_id, payload, ttl, expected=plain),)


@breaks("replace_changes_the_version")
class HasOneVersionOnly(Mutant):
    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        await super().replace(session_id, payload, ttl, expected=expected)
        assert isinstance(expected, int)
        self._shard(session_id)[session_id].version = expected
        return expected


@breaks("a_conflict_tells_what_is_kept_now")
class ConflictIsMute(Mutant):
    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        try:
            return await super().replace(session_id, payload, ttl, expected=expected)
        except Conflict:
            raise Conflict(None) from None


@breaks("a_refused_replace_does_not_extend_life")
class RefusedReplaceTouches(Mutant):
    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        await self.touch(session_id, ttl)
        return await super().replace(session_id, payload, ttl, expected=expected)


@breaks("replace_never_creates")
class ReplaceCreates(Mutant):
    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        if not self._is_there(session_id):
            return await self.create(session_id, payload, ttl)
        return await super().replace(session_id, payload, ttl, expected=expected)


@breaks("replace_never_revives_a_deleted_record")
class RemembersTheDeleted(Mutant):
    async def delete(self, session_id: str) -> bool:
        entry = self._entry(session_id)
        deleted = await super().delete(session_id)
        if entry is not None:
            self._deleted[session_id] = entry.version
        return deleted

    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        if self._deleted.get(session_id) == expected:
            return await self._put(session_id, payload, ttl)
        return await super().replace(session_id, payload, ttl, expected=expected)

    @property
    def _deleted(self) -> dict[str, int]:
        found: dict[str, int] = self.__dict__.setdefault("_remembered", {})
        return found


@breaks("replace_never_revives_an_expired_record")
class ReplaceDoesNotLookAtTheEnd(Mutant):
    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        entry = self._entry(session_id)
        if entry is not None and entry.version == expected:
            return await self._put(session_id, payload, ttl)
        return await super().replace(session_id, payload, ttl, expected=expected)


@breaks("a_version_dies_with_its_record")
class CountsVersionsAnew(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        await super().create(session_id, payload, ttl)
        self._shard(session_id)[session_id].version = 1
        return 1


@breaks("a_strange_version_fits_nothing")
class NoneFitsAll(Mutant):
    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        if expected is None and self._is_there(session_id):
            return await self._put(session_id, payload, ttl)
        return await super().replace(session_id, payload, ttl, expected=expected)


@breaks("of_replaces_at_once_one_wins")
class LooksThenReplaces(Mutant):
    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        stored = await self.load(session_id)
        if stored is None or stored.version != expected:
            raise Conflict(stored)
        await asyncio.sleep(0)
        stored = await self.load(session_id)
        if stored is None:
            raise Conflict(None)
        return await super().replace(session_id, payload, ttl, expected=stored.version)


@breaks("replace_never_undoes_a_delete_at_the_same_time")
class LooksThenWrites(Mutant):
    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        stored = await self.load(session_id)
        if stored is None or stored.version != expected:
            raise Conflict(stored)
        await asyncio.sleep(0)
        return await self._put(session_id, payload, ttl)


@breaks("the_ttl_of_replace_counts")
class ReplaceKeepsTheTtl(Mutant):
    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        if self._is_there(session_id):
            ttl = self._ttl_left(session_id)
        return await super().replace(session_id, payload, ttl, expected=expected)


# Touch and delete.


@breaks("touch_extends_life")
class TouchOnlyShortens(Mutant):
    async def touch(self, session_id: str, ttl: float) -> bool:
        if self._is_there(session_id):
            ttl = min(ttl, self._ttl_left(session_id))
        return await super().touch(session_id, ttl)


@breaks("touch_shortens_life")
class TouchOnlyExtends(Mutant):
    async def touch(self, session_id: str, ttl: float) -> bool:
        if self._is_there(session_id):
            ttl = max(ttl, self._ttl_left(session_id))
        return await super().touch(session_id, ttl)


@breaks("the_last_touch_counts")
class EarlierEndsStillCount(Mutant):
    def _look(self, session_id: str, _now: float) -> None:
        self._remove(session_id)


@breaks("touch_keeps_payload_and_version")
class TouchIsAWrite(Mutant):
    async def touch(self, session_id: str, ttl: float) -> bool:
        stored = await self.load(session_id)
        if stored is not None:
            await self._put(session_id, stored.payload, ttl)
        return stored is not None


@breaks("touch_never_creates")
class TouchCreates(Mutant):
    async def touch(self, session_id: str, ttl: float) -> bool:
        if not self._is_there(session_id):
            await self.create(session_id, b"", ttl)
        return await super().touch(session_id, ttl)


@breaks("touch_never_revives_a_deleted_record")
class TouchFindsTheDeleted(Mutant):
    async def delete(self, session_id: str) -> bool:
        if not self._is_there(session_id):
            return False
        self._shard(session_id)[session_id].expires_at = self._clock()
        return True

    async def touch(self, session_id: str, ttl: float) -> bool:
        entry = self._entry(session_id)
        if entry is not None:
            entry.expires_at = self._clock() + ttl
        return entry is not None

    def _sweep(self, now: float) -> None:
        pass


@breaks("touch_never_revives_an_expired_record")
class TouchDoesNotLookAtTheEnd(Mutant):
    async def touch(self, session_id: str, ttl: float) -> bool:
        entry = self._entry(session_id)
        if entry is not None:
            entry.expires_at = self._clock() + ttl
        return entry is not None


class Touching(Mutant):
    """One that has load_and_touch besides, and right."""

    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        stored = await self.load(session_id)
        if stored is None:
            return None
        is_due = ttl >= self._ttl_left(session_id)
        if is_due:
            await self.touch(session_id, ttl)
        return stored, is_due


@breaks("load_and_touch_returns_what_load_returns")
class ReadingTouchIsAWrite(Touching):
    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        stored = await self.load(session_id)
        if stored is None:
            return None
        return Stored(stored.payload, await self._put(session_id, stored.payload, ttl)), True


@breaks("load_and_touch_extends_life")
class ReadingTouchOnlySaysSo(Touching):
    async def touch(self, session_id: str, _ttl: float) -> bool:
        return self._is_there(session_id)


@breaks("load_and_touch_never_shortens_life")
class ReadingTouchShortens(Touching):
    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        stored = await self.load(session_id)
        await self.touch(session_id, ttl)
        return None if stored is None else (stored, False)


@breaks("load_and_touch_never_creates")
class ReadingTouchCreates(Touching):
    async def load_and_touch(self, session_id: str, ttl: float) -> tuple[Stored, bool] | None:
        if not self._is_there(session_id):
            await self.create(session_id, b"", ttl)
        return await super().load_and_touch(session_id, ttl)


@breaks("delete_removes")
class DeleteOnlySaysSo(Mutant):
    async def delete(self, session_id: str) -> bool:
        return self._is_there(session_id)


@breaks("delete_of_an_absent_record_is_false")
class DeleteIsAlwaysTrue(Mutant):
    async def delete(self, session_id: str) -> bool:
        await super().delete(session_id)
        return True


@breaks("delete_of_an_expired_record_is_false")
class DeleteDoesNotLookAtTheEnd(Mutant):
    async def delete(self, session_id: str) -> bool:
        return self._remove(session_id) is not None


# Time.


@breaks("a_record_lives_its_ttl")
class EndsTooEarly(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return await super().create(session_id, payload, ttl / 4)


@breaks("a_record_ends_with_its_ttl")
class NeverEnds(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return await super().create(session_id, payload, ttl + YEAR)


@breaks("a_fraction_of_a_second_is_not_cut_off")
class CutsToWholeSeconds(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return await super().create(session_id, payload, max(1, int(ttl)))


@breaks("a_blink_is_a_ttl")
class ZeroIsForever(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return await super().create(session_id, payload, round(ttl, 3) or YEAR)


@breaks("a_century_is_a_ttl")
class AMonthIsADate(Mutant):
    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        return await super().create(session_id, payload, -1 if ttl > 30 * 86_400 else ttl)


# Apart.


def mangled(mangle: Callable[[str], str]) -> type[MemoryStorage]:
    """Return a storage that makes something else of each id first."""

    class ManglesIds(Mutant):
        async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
            return await super().create(mangle(session_id), payload, ttl)

        async def load(self, session_id: str) -> Stored | None:
            return await super().load(mangle(session_id))

        async def replace(
            self, session_id: str, payload: bytes, ttl: float, *, expected: Version
        ) -> Version:
            return await super().replace(mangle(session_id), payload, ttl, expected=expected)

        async def touch(self, session_id: str, ttl: float) -> bool:
            return await super().touch(mangle(session_id), ttl)

        async def delete(self, session_id: str) -> bool:
            return await super().delete(mangle(session_id))

    return ManglesIds


breaks("odd_ids_are_ids")(mangled(str.strip))
breaks("long_ids_are_ids")(mangled(lambda session_id: session_id[:500]))
breaks("similar_ids_are_different_ids")(mangled(lambda i: unicodedata.normalize("NFC", i)))
breaks("many_records_stay_apart")(mangled(lambda session_id: session_id[:1]))


@breaks("calls_at_once_each_get_their_own_answer")
class AnswersTheLastFirst(Mutant):
    async def load(self, session_id: str) -> Stored | None:
        answers: list[Stored | None] = self.__dict__.setdefault("_answers", [])
        answers.append(await super().load(session_id))
        await asyncio.sleep(0)
        return answers.pop()


@breaks("a_cancelled_call_does_no_harm")
class TheCancelledLeaveTheirAnswer(Mutant):
    async def load(self, session_id: str) -> Stored | None:
        answers: deque[Stored | None] = self.__dict__.setdefault("_answers", deque())
        answers.append(await super().load(session_id))
        await asyncio.sleep(0)
        return answers.popleft()


@breaks("a_cancelled_write_is_whole_or_not_at_all")
class WritesInTwoHalves(Mutant):
    async def replace(
        self, session_id: str, payload: bytes, ttl: float, *, expected: Version
    ) -> Version:
        half = payload[: len(payload) // 2]
        version = await super().replace(session_id, half, ttl, expected=expected)
        await asyncio.sleep(0)
        return await super().replace(session_id, payload, ttl, expected=version)


# Publish and subscribe.


@breaks("a_notice_reaches_all_who_are_subscribed")
class TellsOneOnly(Mutant):
    async def publish(self, notice: bytes) -> None:
        for notices in list(self._subscribers)[:1]:
            notices.put_nowait(notice)


@breaks("notices_arrive_as_they_were_published")
class StripsNotices(Mutant):
    async def publish(self, notice: bytes) -> None:
        await super().publish(notice.strip())


@breaks("a_subscription_hears_from_its_beginning_on")
class TellsAgain(Mutant):
    @asynccontextmanager
    async def subscribe(self) -> AsyncGenerator[AsyncIterator[bytes]]:
        async with super().subscribe() as notices:
            await self.publish(self.__dict__.get("_last", b""))
            yield notices

    async def publish(self, notice: bytes) -> None:
        self.__dict__["_last"] = notice
        await super().publish(notice)


@breaks("a_subscription_that_ends_disturbs_nobody")
class LeavesForAll(Mutant):
    @asynccontextmanager
    async def subscribe(self) -> AsyncGenerator[AsyncIterator[bytes]]:
        try:
            async with super().subscribe() as notices:
                yield notices
        finally:
            self._subscribers.clear()


@breaks("records_are_read_while_anybody_is_subscribed")
class ReadsNothingMeanwhile(Mutant):
    async def load(self, session_id: str) -> Stored | None:
        return None if self._subscribers else await super().load(session_id)
