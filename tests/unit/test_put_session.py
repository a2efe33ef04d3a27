"""A session in a request that no server has seen."""

from __future__ import annotations

import asyncio
import gc
import logging
from datetime import UTC, datetime

import aiohttp_session
import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from aiosess import (
    SESSION,
    Session,
    SessionGone,
    UnserializableValue,
    explain,
    find_session,
    get_session,
)
from aiosess.exchange.exchange import Exchange
from aiosess.exchange.manager import EXCHANGE
from aiosess.testing import put_session
from aiosess.testing.requests import _at_once


@pytest.fixture
def request_() -> web.Request:
    return make_mocked_request("GET", "/me", {"Host": "shop.example"})


async def test_a_handler_finds_it(request_: web.Request) -> None:
    session = put_session(request_, {"user": "ann"})

    assert await get_session(request_) is session
    assert await find_session(request_) is session
    assert await aiohttp_session.get_session(request_) is session
    assert dict(session) == {"user": "ann"}


async def test_a_library_for_aiohttp_session_can_begin_another(request_: web.Request) -> None:
    put_session(request_, {"user": "ann"})

    session = await aiohttp_session.new_session(request_)

    assert await get_session(request_) is session
    assert dict(session) == {}


async def test_a_clone_of_the_request_that_is_gone_hinders_nobody(request_: web.Request) -> None:
    put_session(request_, {"user": "ann"})
    await get_session(request_.clone())
    # As after the response: the exchange keeps no clone alive any more.
    exchange = request_[EXCHANGE]
    assert isinstance(exchange, Exchange)
    exchange.kept_alive = ()
    gc.collect()
    await get_session(request_)

    session = await aiohttp_session.new_session(request_)

    assert request_[SESSION] is session


def test_there_need_be_no_event_loop_to_put_it(request_: web.Request) -> None:
    session = put_session(request_, {"user": "ann"})

    assert request_[SESSION] is session


def test_with_data_it_is_that_of_a_browser_that_came_back(request_: web.Request) -> None:
    session = put_session(request_, {"user": "ann"})

    assert (session.new, session.identity) == (False, session.id)
    assert explain(request_) == "the session was opened"


@pytest.mark.parametrize("data", [None, {}])
def test_without_data_it_is_new(request_: web.Request, data: dict[str, int] | None) -> None:
    session = put_session(request_, data)

    assert (session.new, session.identity, len(session)) == (True, None, 0)


async def test_what_a_handler_changes_can_be_looked_at(request_: web.Request) -> None:
    session = put_session(request_, {"cart": ["pear"]})

    (await get_session(request_))["cart"].append("apple")

    assert session["cart"] == ["pear", "apple"]


async def test_what_is_saved_is_still_there_when_it_is_read_again(request_: web.Request) -> None:
    session = put_session(request_, {"views": 1})
    session["views"] = 2
    assert await session.save()
    session["views"] = 3

    await session.reload()

    assert session["views"] == 2


def add_one(session: Session) -> int:
    session["views"] += 1
    views: int = session["views"]
    return views


async def test_its_verbs_work(request_: web.Request) -> None:
    session = put_session(request_, {"views": 1})
    before = session.id

    assert await session.touch()
    assert await session.atomic(add_one) == 2
    await session.renew_id()

    assert session.id != before
    assert session["views"] == 2


async def test_what_was_destroyed_is_gone(request_: web.Request) -> None:
    session = put_session(request_, {"user": "ann"})

    await session.destroy()

    with pytest.raises(SessionGone):
        session["user"] = "ann"


async def test_two_requests_know_nothing_of_each_other(request_: web.Request) -> None:
    other = make_mocked_request("GET", "/me")
    session = put_session(request_, {"user": "ann"})
    put_session(other, {"user": "bob"})

    await session.reload()

    assert session["user"] == "ann"


def test_one_that_is_put_again_takes_the_place_of_the_first(request_: web.Request) -> None:
    put_session(request_, {"user": "ann"})

    session = put_session(request_, {"user": "bob"})

    assert request_[SESSION] is session


def test_what_cannot_be_kept_is_refused_at_once(request_: web.Request) -> None:
    with pytest.raises(UnserializableValue, match="since"):
        put_session(request_, {"since": datetime.now(tz=UTC)})


def test_the_log_does_not_say_that_a_memory_is_lost_with_its_process(
    request_: web.Request, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="aiosess"):
        put_session(request_, {"user": "ann"})

    assert caplog.records == []


def test_a_memory_that_is_waited_for_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="was waited for"):
        _at_once(asyncio.sleep(0))
