"""Cases E60 to E96: the options genid, name, rolling, resave, save_uninitialized, secret, unset."""

from __future__ import annotations

import secrets
from typing import Any

import pytest
from aiohttp import web
from pytest_aiohttp import AiohttpClient

from aiosess import (
    SESSION,
    CookieOptions,
    OptionsError,
    SessionOptions,
    Storage,
    StorageError,
    StorageUnavailable,
    setup,
)
from aiosess.testing import FaultyStorage
from tests.conftest import SECRET
from tests.parity.conftest import Serve
from tests.parity.helpers import (
    EXPRESS,
    count,
    do_not_ask,
    id_in,
    kept,
    look,
    record_of,
    sent_cookie,
    session_of,
    the_cookie,
)
from tests.parity.marks import parity


@parity("E60")
def test_a_genid_that_is_no_function_is_refused() -> None:
    with pytest.raises(OptionsError, match="genid"):
        SessionOptions(secret=SECRET, genid="apple")  # type: ignore[arg-type]


@parity("E61")
async def test_there_is_a_default_genid(serve: Serve) -> None:
    client = await serve(kept)

    response = await client.get("/")

    assert len(id_in(response)) == 32


async def a_little_later(_request: web.Request) -> str:
    return "apple"


@parity("E62")
@pytest.mark.parametrize("genid", [lambda _request: "apple", a_little_later])
async def test_the_id_of_a_genid_is_signed_as_express_signs_it(serve: Serve, genid: Any) -> None:
    client = await serve(kept, secret="keyboard cat", genid=genid)

    response = await client.get("/")

    expected = "s%3Aapple.D8Y%2BpkTAmeR0PobOhY4G97PRW%2Bj7bUnP%2F5m6%2FOn1MCU"
    assert the_cookie(response).value == expected


@parity("E63")
async def test_an_id_that_a_cookie_cannot_hold_is_encoded_as_express_does(serve: Serve) -> None:
    client = await serve(count, secret="keyboard cat", genid=lambda _request: "%")

    first, second = await client.get("/"), await client.get("/")

    expected = "s%3A%25.kzQ6x52kKVdF35Qh62AWk4ZekS28K5XYCXKa%2FOTZ01g"
    assert the_cookie(first).value == expected
    assert await second.json() == 2


@parity("E64")
async def test_a_genid_is_given_the_request(serve: Serve) -> None:
    client = await serve(kept, secret="keyboard cat", genid=lambda request: request.path)

    response = await client.get("/foo")

    expected = "s%3A%2Ffoo.paEKBtAHbV5s1IB8B2zPnzAgYmmnRPIqObW4VRYj%2FMQ"
    assert the_cookie(response).value == expected


@parity(
    "E65",
    "E67",
    differs="`sid`, so that the name does not tell strangers what runs; "
    "give `name='connect.sid'` to share sessions with Express",
)
async def test_the_cookie_is_called_sid_by_default(serve: Serve) -> None:
    client = await serve(kept)

    response = await client.get("/")

    assert sent_cookie(response, "sid") is not None


@parity("E66", differs="there is one word for it, `name`; `key` is what Express once called it")
def test_the_name_cannot_be_given_as_key() -> None:
    with pytest.raises(TypeError, match="key"):
        SessionOptions(secret=SECRET, key="session_id")  # type: ignore[call-arg]


@parity("E68")
async def test_the_name_option_names_the_cookie(serve: Serve) -> None:
    client = await serve(kept, name="session_id")

    response = await client.get("/")

    assert sent_cookie(response, "session_id") is not None


@parity("E69")
@pytest.mark.parametrize("options", [{}, EXPRESS], ids=["our defaults", "those of Express"])
async def test_writing_equal_data_sends_no_cookie_again(
    serve: Serve, options: dict[str, Any]
) -> None:
    client = await serve(kept, cookie=CookieOptions(max_age=60), **options)
    await client.get("/")

    response = await client.get("/")

    assert (response.status, sent_cookie(response)) == (200, None)


@parity("E70")
async def test_rolling_sends_the_cookie_of_an_unchanged_session_again(serve: Serve) -> None:
    client = await serve(kept, rolling=True)
    first = await client.get("/")

    second = await client.get("/")

    assert id_in(second) == id_in(first)


@parity("E71")
async def test_rolling_sends_none_for_a_new_session_that_is_not_to_be_saved(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(look, rolling=True, save_uninitialized=False)

    response = await client.get("/")

    assert sent_cookie(response) is None
    assert watched.calls == []


@parity(
    "S18",
    differs="only for one that asked for its session: else nothing is asked of the storage; with "
    "`load='eager'` as in Express",
)
@pytest.mark.parametrize(("load", "is_reached"), [("lazy", False), ("eager", True)])
async def test_a_session_that_nobody_asked_for_is_touched_and_sent_again_only_where_all_are_loaded(
    *, serve: Serve, watched: FaultyStorage, load: str, is_reached: bool
) -> None:
    async def handler(request: web.Request) -> web.Response:
        return await (kept if request.path == "/begin" else do_not_ask)(request)

    client = await serve(handler, rolling=True, load=load)
    await client.get("/begin")
    watched.calls.clear()

    response = await client.get("/")

    assert ("touch" in watched.calls) is is_reached
    assert (sent_cookie(response) is not None) is is_reached


@parity("E72")
@pytest.mark.parametrize(("handler", "load"), [(look, "lazy"), (do_not_ask, "eager")])
async def test_rolling_with_save_uninitialized_saves_an_untouched_session(
    serve: Serve, watched: FaultyStorage, handler: Any, load: str
) -> None:
    client = await serve(handler, rolling=True, save_uninitialized=True, load=load)

    response = await client.get("/")

    assert sent_cookie(response) is not None
    assert watched.calls == ["create"]


@parity("E73")
async def test_rolling_saves_a_changed_session_in_any_case(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(kept, rolling=True, save_uninitialized=False)

    response = await client.get("/")

    assert sent_cookie(response) is not None
    assert watched.calls == ["create"]


@parity(
    "E74",
    differs="off: writing unchanged data again is what loses the updates of other requests "
    "(Express 2 turns it off as well)",
)
async def test_resave_is_off_by_default(serve: Serve, watched: FaultyStorage) -> None:
    client = await serve(kept)
    await client.get("/")

    await client.get("/")

    assert watched.calls == ["create", "load"]


@parity("E75")
async def test_resave_writes_a_session_that_did_not_change(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(kept, resave=True)
    await client.get("/")

    await client.get("/")

    assert watched.calls == ["create", "load", "replace"]


@parity("E76")
async def test_without_resave_a_session_that_did_not_change_is_not_written(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(kept, resave=False, touch_after=0)
    await client.get("/")

    await client.get("/")

    assert watched.calls == ["create", "load", "touch"]


@parity("E77")
async def test_without_resave_a_session_that_did_change_is_written(
    serve: Serve, watched: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        if request.method == "PUT":
            session["token"] = request.path
        return web.json_response(session["token"])

    client = await serve(handler, resave=False)
    await client.put("/a")

    read = await (await client.get("/")).json()
    await client.put("/b")

    assert read == "/a"
    assert watched.calls == ["create", "load", "load", "replace"]


@parity("E78")
async def test_a_change_inside_a_value_is_noticed_also_under_a_key_called_cookie(
    serve: Serve, watched: FaultyStorage
) -> None:
    async def handler(request: web.Request) -> web.Response:
        session = await session_of(request)
        user = session.setdefault("user", {"cookie": 0})
        user["cookie"] += 1
        return web.json_response(user["cookie"])

    client = await serve(handler, resave=False)

    answers = [await (await client.get("/")).json() for _ in range(3)]

    assert answers == [1, 2, 3]
    assert watched.calls == ["create", "load", "replace", "load", "replace"]


@parity("E79")
@pytest.mark.parametrize(
    ("error", "retries"),
    [
        (StorageUnavailable("boom!"), None),
        (StorageUnavailable("boom!"), 0),
        (StorageError("boom!"), None),
    ],
)
async def test_a_failing_touch_is_logged_and_harms_no_response(
    serve: Serve,
    watched: FaultyStorage,
    caplog: pytest.LogCaptureFixture,
    error: StorageError,
    retries: int | None,
) -> None:
    client = await serve(kept, resave=False, touch_after=0, retries=retries)
    await client.get("/")
    watched.fail(error, verbs=("touch",))

    response = await client.get("/")

    assert (response.status, await response.json()) == (200, True)
    assert "boom!" in caplog.text


@parity(
    "E80",
    differs="off: a record for every passing crawler fills the storage "
    "(Express 2 turns it off as well)",
)
async def test_save_uninitialized_is_off_by_default(serve: Serve, watched: FaultyStorage) -> None:
    client = await serve(look)

    response = await client.get("/")

    assert sent_cookie(response) is None
    assert watched.calls == []


@parity(
    "E72",
    "E81",
    differs="only where the handler asked for it; with `load='eager'` in any case, as in Express",
)
async def test_save_uninitialized_saves_no_session_that_nobody_asked_for(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(do_not_ask, save_uninitialized=True, rolling=True)

    response = await client.get("/")

    assert sent_cookie(response) is None
    assert watched.calls == []


@parity("E81")
@pytest.mark.parametrize(("handler", "load"), [(look, "lazy"), (do_not_ask, "eager")])
async def test_save_uninitialized_saves_a_session_that_was_not_changed(
    serve: Serve, storage: Storage, handler: Any, load: str
) -> None:
    client = await serve(handler, save_uninitialized=True, load=load)

    response = await client.get("/")

    assert "cookie" in await record_of(storage, id_in(response))


@parity("E82", "E85")
@pytest.mark.parametrize(("handler", "load"), [(look, "lazy"), (do_not_ask, "eager")])
async def test_without_save_uninitialized_an_untouched_session_is_nowhere(
    serve: Serve, watched: FaultyStorage, handler: Any, load: str
) -> None:
    client = await serve(handler, save_uninitialized=False, touch_after=0, load=load)

    response = await client.get("/")

    assert (response.status, sent_cookie(response)) == (200, None)
    assert watched.calls == []


@parity("E83")
async def test_without_save_uninitialized_a_changed_session_is_saved(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(kept, save_uninitialized=False)

    response = await client.get("/")

    assert sent_cookie(response) is not None
    assert watched.calls == ["create"]


@parity(
    "E84",
    differs="it is a 500, which is possible because saving comes before the headers: a change that "
    "was not kept is not answered as if it were",
)
@pytest.mark.parametrize("retries", [None, 0])
async def test_a_failing_save_is_logged_and_sends_no_cookie(
    serve: Serve,
    watched: FaultyStorage,
    caplog: pytest.LogCaptureFixture,
    retries: int | None,
) -> None:
    client = await serve(kept, retries=retries)
    watched.fail(StorageUnavailable("boom!"), verbs=("create",))

    response = await client.get("/")

    assert (response.status, sent_cookie(response)) == (500, None)
    assert "boom!" in caplog.text


@parity("E86")
def test_an_empty_list_of_secrets_is_refused() -> None:
    with pytest.raises(OptionsError, match="secret"):
        SessionOptions(secret=[])


@parity("E87", "E88", "E89")
@pytest.mark.parametrize(
    "secret",
    [SECRET, secrets.token_bytes(32), [SECRET, "an older secret of the tests, also long enough"]],
    ids=["text", "bytes", "several"],
)
async def test_what_a_secret_signs_it_recognises(serve: Serve, secret: Any) -> None:
    client = await serve(count, secret=secret)

    answers = [await (await client.get("/")).json() for _ in range(2)]

    assert answers == [1, 2]


NEW, OLD = SECRET, "an older secret of the tests, also long enough"


async def _two_servers(
    storage: Storage, aiohttp_client: AiohttpClient, first: Any, second: Any
) -> tuple[Any, Any]:
    """Return two clients with one jar, of two servers with one storage and these secrets."""
    clients: list[Any] = []
    for secret in (first, second):
        app = web.Application()
        setup(app, SessionOptions(secret=secret, storage=storage))
        app.router.add_get("/", count)
        app.router.add_get("/look", look)
        jar = clients[0].session.cookie_jar if clients else None
        clients.append(await aiohttp_client(app, cookie_jar=jar))
    return clients[0], clients[1]


@parity("E90")
async def test_the_first_secret_of_a_list_signs(
    storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    both, only_old = await _two_servers(storage, aiohttp_client, [NEW, OLD], OLD)
    await both.get("/")

    response = await only_old.get("/")

    assert await response.json() == 1


@parity("E91")
async def test_each_secret_of_a_list_is_recognised(
    storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    only_old, both = await _two_servers(storage, aiohttp_client, OLD, [NEW, OLD])
    await only_old.get("/")

    response = await both.get("/")

    assert await response.json() == 2


@parity(
    "S4",
    differs="the next response sends it, whatever else is due, so that the old secret can be "
    "retired",
)
async def test_a_cookie_that_an_older_secret_signed_is_signed_anew_at_once(
    storage: Storage, aiohttp_client: AiohttpClient
) -> None:
    only_old, both = await _two_servers(storage, aiohttp_client, OLD, [NEW, OLD])
    first = await only_old.get("/")

    second = await both.get("/look")

    assert id_in(second, secret=NEW) == id_in(first, secret=OLD)


@parity("E92")
def test_another_word_for_unset_is_refused() -> None:
    with pytest.raises(OptionsError, match="unset"):
        SessionOptions(secret=SECRET, unset="ignore")  # type: ignore[arg-type]


async def take_away(request: web.Request) -> web.Response:
    """Count, and take the session away where the path says so."""
    session = await session_of(request)
    session["count"] = session.get("count", 0) + 1
    if request.path == "/away":
        del request[SESSION]
    return web.json_response(session["count"])


@parity("E93")
async def test_a_session_that_was_taken_away_keeps_its_record_by_default(
    serve: Serve, storage: Storage
) -> None:
    client = await serve(take_away)
    first = await client.get("/")

    await client.get("/away")

    assert (await record_of(storage, id_in(first)))["count"] == 1


@parity("E94", differs="the record is deleted, and the browser's cookie is cleared as well")
async def test_unset_destroy_deletes_the_record_and_clears_the_cookie(
    serve: Serve, storage: Storage
) -> None:
    client = await serve(take_away, unset="destroy")
    first = await client.get("/")

    second = await client.get("/away")

    assert await storage.load(id_in(first)) is None
    assert (the_cookie(second).value, the_cookie(second).attributes["max-age"]) == ("", "0")


@parity("E95")
async def test_a_new_session_that_was_taken_away_was_never_there(
    serve: Serve, watched: FaultyStorage
) -> None:
    client = await serve(take_away, unset="destroy", save_uninitialized=True)

    response = await client.get("/away")

    assert (response.status, sent_cookie(response)) == (200, None)
    assert watched.calls == []


@parity(
    "E96",
    differs="it is a 500: nobody is told of a logout that did not happen",
)
@pytest.mark.parametrize("retries", [None, 0])
async def test_a_failing_delete_is_logged_and_clears_no_cookie(
    serve: Serve,
    watched: FaultyStorage,
    caplog: pytest.LogCaptureFixture,
    retries: int | None,
) -> None:
    client = await serve(take_away, unset="destroy", retries=retries)
    await client.get("/")
    watched.fail(StorageUnavailable("boom!"), verbs=("replace", "delete"))

    response = await client.get("/away")

    assert (response.status, sent_cookie(response)) == (500, None)
    assert "boom!" in caplog.text
