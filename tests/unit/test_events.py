"""What happens again and again: a line now and then, and a listener that hears each time."""

from __future__ import annotations

import pytest

from aiosess import Reason, SessionEvent
from aiosess.events import Events
from aiosess.testing import FakeClock


def test_what_happens_again_and_again_is_a_line_every_half_a_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    events = Events(clock=clock)
    for _ in range(100):
        events.tell_now_and_then(Reason.REPLIES_MIXED_UP)
        clock.advance(1)

    told = [record.message.partition(" times")[0].rpartition(" ")[2] for record in caplog.records]

    assert told == ["1", "31", "61", "91"]


def test_a_listener_hears_of_each_time() -> None:
    heard: list[SessionEvent] = []
    events = Events(heard.append, FakeClock())

    for _ in range(5):
        events.tell_now_and_then(Reason.TOO_SLOW, node="a:1")

    assert [event.reason for event in heard] == [Reason.TOO_SLOW] * 5


def test_what_is_told_once_takes_no_more_memory_however_it_differs() -> None:
    events = Events(clock=FakeClock())

    for number in range(5_000):
        events.tell_once(Reason.VALUE_INVALID, key="age", why=f"{number} is too old")

    assert len(events._told_once) <= 1_000


def test_each_reason_is_counted_by_itself(caplog: pytest.LogCaptureFixture) -> None:
    events = Events(clock=FakeClock())

    events.tell_now_and_then(Reason.REPLIES_MIXED_UP)
    events.tell_now_and_then(Reason.TOO_SLOW, node="a:1")

    assert len(caplog.records) == 2
