"""One connection that many share: who waits for what, for how long, and what is sent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from aiosess import StorageUnavailable
from aiosess.clients import pipeline
from aiosess.clients.pipeline import Call, Pipeline

SOON = 0.03
PATIENCE = 30.0


class Transport(asyncio.Transport):
    """Notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))


class Echo(Pipeline):
    """A connection on which the test says when the next call is answered, and with what."""

    def __init__(self, *, patience: float = PATIENCE) -> None:
        super().__init__(asyncio.get_running_loop(), patience=patience)
        self.sent = Transport()
        self.transport = self.sent

    def answer(self, word: str) -> None:
        answer = self.waiting.popleft()[0]
        if not answer.done():
            answer.set_result(word)

    def ended(self, calls: Sequence[Call], error: BaseException) -> None:
        for answer, *_ in calls:
            answer.set_exception(ConnectionResetError(str(error)))


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo()
    yield made
    made.end(ConnectionResetError("the test is over"))


async def tick() -> None:
    await asyncio.sleep(0)


async def test_the_calls_of_one_tick_leave_in_one_write(echo: Echo) -> None:
    for command in (b"a", b"b", b"c"):
        echo.ask(command, math.inf)

    await tick()

    assert echo.sent.written == [b"abc"]


async def test_answers_go_to_those_who_asked_in_their_order(echo: Echo) -> None:
    calls = [echo.ask(command, math.inf) for command in (b"a", b"b")]
    await tick()

    echo.answer("first")
    echo.answer("second")

    assert [await call for call in calls] == ["first", "second"]


async def test_a_call_that_is_not_answered_in_its_time_fails_and_says_how_long_that_was(
    echo: Echo,
) -> None:
    late = echo.ask(b"a", SOON)

    with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.03 s"):
        await late


async def test_each_call_has_a_time_of_its_own(echo: Echo) -> None:
    patient = echo.ask(b"a", 60)
    hasty = echo.ask(b"b", SOON)

    with pytest.raises(StorageUnavailable):
        await hasty

    assert not patient.done()


async def test_calls_that_fall_due_one_after_the_other_all_fail_in_time(echo: Echo) -> None:
    calls = [echo.ask(b"a", SOON * number) for number in (1, 2, 3)]

    outcomes = await asyncio.gather(*calls, return_exceptions=True)

    assert [str(outcome)[-6:] for outcome in outcomes] == ["0.03 s", "0.06 s", "0.09 s"]


async def test_the_answer_to_a_call_that_was_late_goes_to_nobody_else(echo: Echo) -> None:
    late = echo.ask(b"a", SOON)
    then = echo.ask(b"b", 60)
    with pytest.raises(StorageUnavailable):
        await late

    echo.answer("for the late one")
    echo.answer("for the other")

    assert await then == "for the other"


async def test_a_late_call_does_not_end_the_connection(echo: Echo) -> None:
    with pytest.raises(StorageUnavailable):
        await echo.ask(b"a", SOON)

    assert not echo.is_over


async def test_a_call_that_was_given_up_before_it_left_is_never_sent(echo: Echo) -> None:
    given_up = echo.ask(b"a", math.inf)
    echo.ask(b"b", math.inf)
    given_up.cancel()

    await tick()

    assert echo.sent.written == [b"b"]


async def test_a_server_that_takes_no_more_is_sent_the_rest_when_it_does(echo: Echo) -> None:
    echo.pause_writing()
    echo.ask(b"a", math.inf)
    await tick()
    before = list(echo.sent.written)

    echo.resume_writing()

    assert (before, echo.sent.written) == ([], [b"a"])


async def test_a_call_that_waits_for_room_to_be_sent_fails_in_its_time_too(echo: Echo) -> None:
    echo.pause_writing()

    with pytest.raises(StorageUnavailable):
        await echo.ask(b"a", SOON)


async def test_a_server_that_owes_an_answer_and_says_nothing_is_given_up() -> None:
    echo = Echo(patience=SOON)

    with pytest.raises(ConnectionResetError, match="said nothing"):
        await echo.ask(b"a", 60)

    assert echo.is_over


async def test_a_server_that_owes_nothing_may_be_silent() -> None:
    echo = Echo(patience=SOON)
    call = echo.ask(b"a", 60)
    await tick()
    echo.answer("word")
    await call

    await asyncio.sleep(3 * SOON)

    assert not echo.is_over


async def test_what_is_asked_when_it_is_over_is_refused_at_once(echo: Echo) -> None:
    echo.end(ConnectionResetError("gone"))

    with pytest.raises(ConnectionResetError):
        echo.ask(b"a", math.inf)


async def test_one_call_too_many_is_refused(echo: Echo, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_MOST_WAITING", 2)
    echo.ask(b"a", math.inf)
    echo.ask(b"b", math.inf)

    with pytest.raises(StorageUnavailable, match="2 calls are waiting"):
        echo.ask(b"c", math.inf)


async def test_a_call_that_was_given_up_makes_room(
    echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "_MOST_WAITING", 1)
    echo.pause_writing()
    echo.ask(b"a", math.inf).cancel()

    call = echo.ask(b"b", math.inf)

    assert not call.done()


async def test_who_asked_before_the_connection_stood_has_lost_that_time() -> None:
    echo = Echo()
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    echo.take([(answer, b"a", pipeline.clock() - 60, 60, b"")])

    with pytest.raises(StorageUnavailable, match="within 60 s"):
        await asyncio.wait_for(answer, 5)
