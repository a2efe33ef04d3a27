"""One connection that many share: who waits for what, for how long, and what is sent."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Self

import pytest

from aiosess import StorageUnavailable
from aiosess.clients import pipeline
from aiosess.clients.pipeline import Call, Pipeline

SOON = 0.03


class Transport(asyncio.Transport):
    """Notes what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ARG002
        return default


class Echo(Pipeline):
    """A connection on which the test says when the next call is answered, and with what."""

    def __init__(self) -> None:
        super().__init__(asyncio.get_running_loop())
        self.sent = Transport()
        self.transport = self.sent
        self.passed_on: list[bytes] = []

    def say_a_part(self) -> None:
        """Receive bytes that are no whole answer yet."""
        self.moved_at = pipeline.clock()

    def answer(self, word: str) -> None:
        self.say_a_part()
        answer = self.waiting.popleft()[0]
        if not answer.done():
            answer.set_result(word)

    def ended(self, calls: Sequence[Call], error: BaseException) -> None:
        for answer, *_ in calls:
            answer.set_exception(ConnectionResetError(str(error)))

    def pass_on(self, calls: Sequence[Call]) -> None:
        self.passed_on += [command for _, command, *_ in calls]


@pytest.fixture
async def echo() -> AsyncIterator[Echo]:
    made = Echo()
    yield made
    made.end(ConnectionResetError("the test is over"))


class Noting(float):
    """An instant that notes when somebody compares it."""

    def __new__(cls, value: float, _asked: list[float]) -> Self:
        return super().__new__(cls, value)

    def __init__(self, value: float, asked: list[float]) -> None:
        self._value = value
        self._asked = asked

    def __lt__(self, other: float) -> bool:
        self._asked.append(self._value)
        return self._value < other

    def __gt__(self, other: float) -> bool:
        self._asked.append(self._value)
        return self._value > other


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


async def test_a_connection_with_a_late_call_takes_no_other_and_goes_on_for_those_who_wait(
    echo: Echo,
) -> None:
    late = echo.ask(b"a", SOON)
    patient = echo.ask(b"b", 60)
    with pytest.raises(StorageUnavailable):
        await late

    assert (echo.is_over, echo.is_closed, patient.done()) == (True, False, False)


async def test_a_connection_is_closed_when_its_last_call_is_late(echo: Echo) -> None:
    with pytest.raises(StorageUnavailable):
        await echo.ask(b"a", SOON)

    assert echo.is_closed


async def test_a_connection_that_takes_no_more_is_closed_when_all_were_answered(
    echo: Echo,
) -> None:
    late, slow = echo.ask(b"a", SOON), echo.ask(b"b", 3 * SOON)
    with pytest.raises(StorageUnavailable):
        await late
    echo.answer("for the late one")
    echo.answer("for the slow one")

    answered = await slow
    await asyncio.sleep(4 * SOON)

    assert (answered, echo.is_closed) == ("for the slow one", True)


async def test_a_time_limit_counts_from_the_servers_last_sign_of_life(echo: Echo) -> None:
    calls = [echo.ask(b"a", 2 * SOON), echo.ask(b"b", 2 * SOON)]
    for _ in range(6):
        await asyncio.sleep(SOON)
        echo.say_a_part()
    are_refused = [call.done() for call in calls]

    echo.answer("large")

    assert are_refused == [False, False]
    assert await calls[0] == "large"


async def test_after_its_last_sign_of_life_a_server_has_the_time_limit_and_no_longer(
    echo: Echo,
) -> None:
    call = echo.ask(b"a", SOON)
    await tick()
    echo.say_a_part()

    with pytest.raises(StorageUnavailable, match=r"did not answer within 0\.03 s"):
        await asyncio.wait_for(call, 60 * SOON)


async def test_a_busy_event_loop_refuses_nobody_who_is_answered_then(echo: Echo) -> None:
    call = echo.ask(b"a", SOON)
    time.sleep(3 * SOON)  # noqa: ASYNC251 - that is what it is about
    await tick()
    await tick()

    echo.answer("word")

    assert await call == "word"


async def test_what_was_asked_in_a_long_tick_has_its_time_from_when_it_is_sent(
    echo: Echo,
) -> None:
    # The look for this one falls into the next long tick.
    first = echo.ask(b"a", SOON)
    await tick()
    time.sleep(3 * SOON)  # noqa: ASYNC251 - that is what it is about
    await tick()
    await tick()
    echo.answer("first")
    await first

    second = echo.ask(b"b", 3 * SOON)
    time.sleep(4 * SOON)  # noqa: ASYNC251 - that is what it is about
    await tick()
    await tick()
    echo.answer("second")

    assert await second == "second"


async def test_a_busy_event_loop_refuses_who_is_not_answered_then_either(echo: Echo) -> None:
    call = echo.ask(b"a", SOON)
    time.sleep(3 * SOON)  # noqa: ASYNC251 - that is what it is about

    with pytest.raises(StorageUnavailable):
        await asyncio.wait_for(call, 60 * SOON)


async def test_a_call_that_was_given_up_and_not_answered_is_late_as_well(echo: Echo) -> None:
    echo.ask(b"a", SOON).cancel()
    sent = echo.ask(b"b", SOON)
    await tick()
    sent.cancel()

    await asyncio.sleep(3 * SOON)

    assert echo.is_closed


async def test_what_was_given_up_before_it_was_sent_is_dropped_with_its_payload(
    echo: Echo,
) -> None:
    echo.pause_writing()
    calls = [echo.ask(bytes(1000), SOON) for _ in range(10)]
    patient = echo.ask(b"b", 60)

    await asyncio.gather(*calls, return_exceptions=True)

    assert [call[0] for call in echo._outbox] == [patient]


async def test_looking_for_late_calls_does_not_go_through_all_that_wait(echo: Echo) -> None:
    young = [echo.ask(b"b", 60) for _ in range(1000)]
    await tick()
    seen: list[Call] = []

    def look() -> Iterator[Call]:
        for call in echo.waiting:
            seen.append(call)
            yield call

    echo._refuse(look(), pipeline.clock())

    assert (len(seen), len(young)) == (1, 1000)


async def test_those_who_failed_are_not_looked_at_again(echo: Echo) -> None:
    late = [echo.ask(b"a", SOON) for _ in range(100)]
    echo.ask(b"b", 60)
    await asyncio.gather(*late, return_exceptions=True)
    asked: list[float] = []
    echo.waiting = deque(
        (call[0], call[1], Noting(call[2], asked), call[3], call[4]) for call in echo.waiting
    )

    echo._refuse_late(pipeline.clock())

    assert len(asked) == 1


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


async def test_what_was_not_sent_is_passed_on_when_the_connection_is_given_up(echo: Echo) -> None:
    late = echo.ask(b"a", SOON)
    await tick()
    echo.pause_writing()
    unsent = echo.ask(b"b", 60)

    with pytest.raises(StorageUnavailable):
        await late

    assert echo.passed_on == [b"b"]
    assert not unsent.done()


async def test_what_was_asked_and_given_up_is_not_passed_on(echo: Echo) -> None:
    late = echo.ask(b"a", SOON)
    await tick()
    echo.pause_writing()
    echo.ask(b"b", 60).cancel()

    with pytest.raises(StorageUnavailable):
        await late

    assert echo.passed_on == []


async def test_a_server_that_owes_nothing_may_be_silent(echo: Echo) -> None:
    call = echo.ask(b"a", SOON)
    await tick()
    echo.answer("word")
    await call

    await asyncio.sleep(3 * SOON)

    assert not echo.is_over


async def test_what_is_asked_when_it_is_over_is_refused_at_once(echo: Echo) -> None:
    echo.end(ConnectionResetError("gone"))

    with pytest.raises(ConnectionResetError):
        echo.ask(b"a", math.inf)


async def test_no_call_is_one_too_many(echo: Echo) -> None:
    calls = [echo.ask(b"a", math.inf) for _ in range(30_000)]
    await tick()

    assert len(echo.waiting) == 30_000
    assert not any(call.done() for call in calls)


async def test_calls_that_were_given_up_do_not_pile_up(echo: Echo) -> None:
    echo.pause_writing()
    kept = echo.ask(b"kept", math.inf)

    for _ in range(5 * pipeline._SWEEP_AT):
        echo.ask(b"given up", math.inf).cancel()

    assert len(echo._outbox) <= pipeline._SWEEP_AT
    echo.resume_writing()
    echo.answer("kept")
    assert await kept == "kept"


async def test_who_asked_before_the_connection_stood_has_lost_that_time(echo: Echo) -> None:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    echo.take([(answer, b"a", pipeline.clock() - 60, 60, b"")])

    with pytest.raises(StorageUnavailable, match="within 60 s"):
        await asyncio.wait_for(answer, 5)


async def test_an_older_call_that_comes_later_is_in_its_place(echo: Echo) -> None:
    echo.pause_writing()
    echo.ask(b"young", 60)
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    echo.take([(answer, b"old", pipeline.clock() - 30, 60, b"")])

    assert [command for _, command, *_ in echo._outbox] == [b"old", b"young"]


async def test_a_tcp_connection_is_kept_alive() -> None:
    server = await asyncio.start_server(lambda _r, writer: writer.close(), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())

    pipeline.keep_alive(writer.transport)

    end = writer.get_extra_info("socket")
    assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert end.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()


async def test_what_is_no_tcp_connection_is_left_alone(echo: Echo) -> None:
    pipeline.keep_alive(echo.sent)

    assert not echo.is_over


def test_a_system_without_a_name_for_an_option_does_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(pipeline._KEEP_ALIVE, "TCP_NO_SUCH_OPTION", 1)
    with socket.create_server(("127.0.0.1", 0)) as end:

        class Transport:
            def get_extra_info(self, _name: str) -> socket.socket:
                return end

        pipeline.keep_alive(Transport())  # type: ignore[arg-type]

        assert end.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_connection_that_never_stood_is_not_hung_up() -> None:
    pipeline.hang_up(None)
