"""An exchange where it is asked for what it cannot do."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from aiosess import MemoryStorage, SessionNotSent, SessionOptions
from aiosess.exchange.exchange import Exchange
from aiosess.exchange.keys import NO_SESSION
from aiosess.exchange.manager import SessionManager
from aiosess.exchange.stages import Commit, Opening, moved
from aiosess.middleware import _rewind


@pytest.fixture
def manager() -> SessionManager:
    secret = "a secret of the tests that is long enough to be quiet"
    return SessionManager(SessionOptions(secret=secret, storage=MemoryStorage()))


@pytest.mark.parametrize(
    ("stage", "to", "words"),
    [
        (Opening.UNASKED, Opening.OPEN, "Opening cannot become OPEN: it is UNASKED"),
        (Commit.PENDING, Commit.DONE, "Commit cannot become DONE: it is PENDING"),
    ],
)
def test_a_move_that_is_not_in_the_table_is_an_error_that_names_the_stage(
    stage: Any, to: Any, words: str
) -> None:
    with pytest.raises(RuntimeError, match=words):
        moved(stage, to)


async def test_nothing_is_done_to_a_session_that_was_not_opened(manager: SessionManager) -> None:
    request = make_mocked_request("GET", "/")
    exchange = Exchange(manager, request)

    with pytest.raises(RuntimeError, match="was not opened"):
        await exchange.save()


async def test_a_response_leaves_though_nobody_asked_for_the_session(
    manager: SessionManager,
) -> None:
    request = make_mocked_request("GET", "/")
    exchange = Exchange(manager, request)

    await exchange.prepare(web.Response())

    assert exchange.has_left


def test_in_a_request_that_is_over_no_session_can_begin(manager: SessionManager) -> None:
    exchange = Exchange(manager, make_mocked_request("GET", "/"))
    gc.collect()

    with pytest.raises(SessionNotSent, match="the request is over"):
        _ = exchange.request


async def test_a_route_without_a_session_keeps_nothing_and_loses_nothing() -> None:
    NO_SESSION.abandon()

    with pytest.raises(RuntimeError, match="this route gets no session"):
        await NO_SESSION.new_session()


def test_a_connection_that_aiohttp_does_not_write_to_is_left_as_it_is() -> None:
    request = make_mocked_request("GET", "/")
    request.writer.length = 5

    _rewind(request, web.Response())

    assert request.writer.length == 5
