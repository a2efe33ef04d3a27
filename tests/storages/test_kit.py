"""The kit itself: its runner, its pytest adapter, its page of the reference."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from aiosess import Conflict, MemoryStorage, OptionsError, Storage, Stored, Version
from aiosess.testing import (
    CASES,
    Case,
    FakeClock,
    FaultyStorage,
    Harness,
    Misbehaviour,
    report,
    run_contract,
)
from aiosess.testing.contract.case import promise, promise_over_time
from aiosess.testing.contract.document import as_markdown
from aiosess.testing.contract.harness import Timeline
from aiosess.testing.pytest import storage_contract

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "storage-contract.md"

# Nothing may really be waited for here.
CLOCK = FakeClock()


class TouchAndDeleteLie(MemoryStorage):
    async def touch(self, session_id: str, ttl: float) -> bool:
        await super().touch(session_id, ttl)
        return True

    async def delete(self, session_id: str) -> bool:
        await super().delete(session_id)
        return True


class LoadRaises(MemoryStorage):
    async def load(self, _session_id: str) -> Stored | None:
        raise ZeroDivisionError("a programming error")


class LoadHangs(MemoryStorage):
    async def load(self, _session_id: str) -> Stored | None:
        await asyncio.Event().wait()
        return None


async def test_all_misbehaviours_are_reported_at_once() -> None:
    results = await run_contract(Harness(lambda: TouchAndDeleteLie(clock=CLOCK), clock=CLOCK))

    broken = {result.case.name for result in results if not result.is_kept}
    assert broken >= {
        "touch_never_creates",
        "touch_never_revives_an_expired_record",
        "delete_of_an_absent_record_is_false",
        "delete_of_an_expired_record_is_false",
    }
    assert len(results) == len(CASES)


async def test_the_report_says_the_promise_and_what_was_seen() -> None:
    results = await run_contract(Harness(lambda: TouchAndDeleteLie(clock=CLOCK), clock=CLOCK))

    lines = report(results).splitlines()

    at = lines.index(
        "BROKEN  touch_never_creates: "
        "Touch of an id that no record has returns False and creates nothing."
    )
    assert lines[at + 1].strip() == "touch of no record returned True: it must be False"
    assert "kept    create_keeps_the_payload" in lines


async def test_an_error_of_the_storage_is_a_result_and_stops_no_other_case() -> None:
    results = await run_contract(Harness(lambda: LoadRaises(clock=CLOCK), clock=CLOCK))

    by_name = {result.case.name: result for result in results}
    assert isinstance(by_name["create_keeps_the_payload"].error, ZeroDivisionError)
    assert "ZeroDivisionError was raised: a programming error" in report(results)
    assert by_name["of_replaces_at_once_one_wins"].error is not None
    assert by_name["touch_never_revives_an_expired_record"].error is not None


async def test_a_storage_that_does_not_answer_is_a_result() -> None:
    results = await run_contract(Harness(LoadHangs, unit=0.01, patience=0.2))

    assert "there was no answer within 0.2 s" in report(results)
    assert any(result.is_kept for result in results)


async def test_a_case_that_was_looked_at_too_late_is_tried_again_with_more_time() -> None:
    units = []

    async def in_time_where_the_unit_is_long(storage: Storage, time: Timeline) -> None:
        """Look in time."""
        units.append(time.unit)
        deadline = time.now() + 3
        await time.wait(4 / time.unit)
        time.still_before(deadline)

    await promise_over_time(in_time_where_the_unit_is_long).run(
        Harness(lambda: MemoryStorage(clock=CLOCK), clock=CLOCK, unit=1)
    )

    assert units == [1, 2]


async def test_a_case_that_is_always_too_late_proves_nothing_and_fails() -> None:
    async def never_in_time(storage: Storage, time: Timeline) -> None:
        """Look in time."""
        time.still_before(time.now())

    with pytest.raises(Misbehaviour, match="had expired meanwhile"):
        await promise_over_time(never_in_time).run(
            Harness(lambda: MemoryStorage(clock=CLOCK), clock=CLOCK)
        )


async def test_the_harness_enters_and_leaves_a_context_manager() -> None:
    log = []

    @asynccontextmanager
    async def make() -> AsyncGenerator[Storage]:
        log.append("opened")
        yield MemoryStorage()
        log.append("closed")

    async with Harness(make).open() as storage:
        await storage.create("an id", b"cart", 60)

    assert log == ["opened", "closed"]


async def test_the_harness_closes_a_storage_that_can_be_closed() -> None:
    class Closing(MemoryStorage):
        is_closed = False

        async def close(self) -> None:
            self.is_closed = True

    storage = Closing()

    async with Harness(lambda: storage).open():
        pass

    assert storage.is_closed


def test_a_harness_needs_a_function() -> None:
    with pytest.raises(OptionsError, match="is not callable: give a function"):
        Harness(MemoryStorage())  # type: ignore[arg-type]


def test_a_promise_needs_its_sentence() -> None:
    async def nameless(storage: Storage) -> None: ...

    with pytest.raises(TypeError, match="nameless needs a docstring of one sentence"):
        promise(nameless)


def test_names_and_sentences_are_unique() -> None:
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({case.sentence for case in CASES}) == len(CASES)


def test_one_line_makes_one_pytest_test_of_each_case(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "from aiosess.testing import FakeClock, Harness\n"
        "from aiosess.testing.pytest import storage_contract\n"
        "from tests.storages.mutants import MUTANTS\n"
        "clock = FakeClock()\n"
        "def make(): return MUTANTS['a_century_is_a_ttl'](clock=clock)\n"
        "test_mine = storage_contract(Harness(make, clock=clock))\n"
    )
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:asyncio"]
    command += ["-p", "no:aiohttp", "--rootdir", str(tmp_path), "test_mine.py"]
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""}

    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert f"1 failed, {len(CASES) - 1} passed" in done.stdout, done.stdout + done.stderr
    assert "FAILED test_mine.py::test_mine[a_century_is_a_ttl]" in done.stdout


def test_the_adapter_says_when_a_fixture_gives_no_harness(request: pytest.FixtureRequest) -> None:
    test = storage_contract("tmp_path")

    with pytest.raises(TypeError, match="must give an aiosess"):
        test(CASES[0], request)


def test_the_kit_needs_no_test_framework() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None; import asyncio, aiosess.testing as kit;"
        "clock = kit.FakeClock(); from aiosess import MemoryStorage;"
        "harness = kit.Harness(lambda: MemoryStorage(clock=clock), clock=clock);"
        "print(all(r.is_kept for r in asyncio.run(kit.run_contract(harness))))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )

    assert done.stdout.strip() == "True", done.stderr


def test_the_page_of_the_reference_is_made_from_the_cases() -> None:
    assert PAGE.read_text() == as_markdown(), (
        f"stale: python -m aiosess.testing.contract > docs/reference/{PAGE.name}"
    )


def test_the_page_is_printed_by_the_module() -> None:
    command = [sys.executable, "-W", "error", "-m", "aiosess.testing.contract"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.stdout == as_markdown(), done.stderr


async def test_a_subscription_that_ends_by_itself_is_reported() -> None:
    class EndsAtOnce(MemoryStorage):
        @asynccontextmanager
        async def subscribe(self) -> AsyncGenerator[AsyncIterator[bytes]]:
            async def nothing() -> AsyncIterator[bytes]:
                for each in list[bytes]():
                    yield each

            yield nothing()

    [case] = [each for each in CASES if each.name == "a_notice_reaches_all_who_are_subscribed"]

    with pytest.raises(Misbehaviour, match="ended by itself"):
        await case.run(Harness(EndsAtOnce))


# A storage that is wrong at the step before


def case(name: str) -> Case:
    return next(each for each in CASES if str(each) == name)


class Overwriting(MemoryStorage):
    """A storage in which no id is ever taken."""

    async def create(self, session_id: str, payload: bytes, ttl: float) -> Version:
        await self.delete(session_id)
        return await super().create(session_id, payload, ttl)


class Refusing(MemoryStorage):
    """A storage that finds a conflict in each replace."""

    async def replace(
        self, session_id: str, _payload: bytes, _ttl: float, *, expected: Version
    ) -> Version:
        assert expected is not None
        raise Conflict(await self.load(session_id))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Overwriting, "a_refused_create_does_not_extend_life"),
        (Refusing, "the_ttl_of_replace_counts"),
    ],
)
async def test_a_storage_that_fails_before_the_time_counts_is_told_so(
    kind: type[MemoryStorage], name: str
) -> None:
    clock = FakeClock()

    with pytest.raises(Misbehaviour):
        await case(name).run(Harness(lambda: kind(clock=clock), clock))


async def test_a_time_limit_of_the_storage_itself_is_not_taken_for_ours() -> None:
    storage = FaultyStorage()
    storage.fail(TimeoutError("of the storage"))

    with pytest.raises(TimeoutError, match="of the storage"):
        await CASES[0].run(Harness(lambda: storage))
