"""A few of the faults that ``make faults`` does, in small: nothing is lost, and it gets well."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.harness import Found, Size
from tests.faults.rows import ROWS

SMALL = Size(browsers=6, strangers=2, before=0.2, lasts=1.0, after=1.5)


async def found(name: str, folder: Path) -> Found:
    return await ROWS[name](folder, SMALL)


def assert_refused(found: Found) -> None:
    """All requests got 503, but those that were under way when the fault began."""
    assert set(found.statuses) <= {200, 503}
    assert found.statuses[200] <= SMALL.browsers
    assert found.statuses[503] > 0


@pytest.mark.parametrize("name", ["hang", "memcached-hang"])
async def test_a_hang_is_two_lines_in_the_log_and_loses_nothing(name: str, tmp_path: Path) -> None:
    hung = await found(name, tmp_path)

    assert (hung.lost_writes, hung.lost_sessions, hung.strangers_refused) == (0, 0, 0)
    assert_refused(hung)
    assert hung.lines <= 2


@pytest.mark.parametrize("name", ["reset", "half-open"])
async def test_a_lost_connection_is_bridged_by_the_retries(name: str, tmp_path: Path) -> None:
    lost = await found(name, tmp_path)

    assert (lost.lost_writes, lost.lost_sessions) == (0, 0)
    assert set(lost.statuses) == {200}


async def test_a_redis_that_is_full_is_no_traceback_a_request(tmp_path: Path) -> None:
    full = await found("full", tmp_path)

    assert (full.lost_writes, full.lost_sessions) == (0, 0)
    assert_refused(full)
    assert full.lines <= 4


@pytest.mark.parametrize("name", ["name-gone", "name-hangs", "memcached-name-gone"])
async def test_a_name_that_does_not_resolve_is_an_outage_that_ends(
    name: str, tmp_path: Path
) -> None:
    gone = await ROWS[name](tmp_path, replace(SMALL, after=3.0))

    assert (gone.lost_writes, gone.lost_sessions, gone.strangers_refused) == (0, 0, 0)
    assert_refused(gone)
    assert gone.lines <= 2


async def test_a_name_that_leads_to_another_server_is_followed(tmp_path: Path) -> None:
    moved = await ROWS["name-moves"](tmp_path, replace(SMALL, lasts=3.0))

    # Seconds before the end of what was looked at.
    assert moved.statuses[200] > 0
    assert moved.well_after < 3.0


async def test_a_memcached_that_is_out_of_memory_is_no_traceback_a_request(tmp_path: Path) -> None:
    full = await found("memcached-full", tmp_path)

    assert (full.lost_writes, full.lost_sessions) == (0, 0)
    # While it fills up, some find room.
    assert set(full.statuses) == {200, 503}
    assert full.lines <= 4


async def test_of_two_memcached_servers_the_one_that_answers_keeps_its_sessions_going(
    tmp_path: Path,
) -> None:
    # Of so many sessions, each server has some.
    halved = await ROWS["memcached-one"](tmp_path, replace(SMALL, browsers=20))

    assert (halved.lost_writes, halved.lost_sessions) == (0, 0)
    assert halved.statuses[200] > 0
