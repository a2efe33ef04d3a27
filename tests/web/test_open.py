"""From the cookie to the session: when the storage is asked, and what is never adopted."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, NoReturn

import pytest
from aiohttp import web

from aiosess import CookieOptions, Storage, get_session
from aiosess.testing import FaultyStorage
from aiosess.transports.signing import Signer
from tests.conftest import SECRET
from tests.web.conftest import Connect
from tests.web.handlers import (
    cookies_set,
    keep,
    kept,
    kind,
    leave_alone,
    put,
    session_of,
    show,
    signed,
    views,
)

FORGERIES = {
    "no signature": "s%3Aapple",
    "the bare id": "apple",
    "an empty value": "",
    "another secret": Signer("somebody else's secret, also long enough").sign("apple"),
    "a signature cut short": Signer(SECRET).sign("apple")[:-3],
    "a signature of another id": "s%3Aapple." + Signer(SECRET).sign("pear").rpartition(".")[2],
    "without the prefix": Signer(SECRET).sign("apple").removeprefix("s%3A"),
    "broken percent-encoding": Signer(SECRET).sign("apple") + "%",
    "an empty id": Signer(SECRET).sign(""),
}


async def test_a_handler_that_does_not_ask_costs_no_storage_call_and_no_header(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(leave_alone, storage=faulty, forgets=True)

    response = await client.get("/leave_alone", headers=signed("apple"))

    assert faulty.calls == []
    assert "Vary" not in response.headers


async def test_eager_loads_the_session_although_the_handler_does_not_ask(
    connect: Connect, faulty: FaultyStorage, storage: Storage
) -> None:
    await keep(storage, "apple")
    client = await connect(leave_alone, storage=faulty, load="eager", forgets=True)

    await client.get("/leave_alone", headers=signed("apple"))

    assert faulty.calls[0] == "load"


@pytest.mark.parametrize(
    ("options", "is_loaded_first"),
    [
        ({}, False),
        ({"retries": 0}, True),
        ({"retries": 2}, True),
        ({"retries": 0, "load": "lazy"}, False),
        ({"load": "eager"}, True),
    ],
    ids=str,
)
async def test_sessions_are_eager_where_retries_are_set_unless_the_options_say_otherwise(
    connect: Connect, faulty: FaultyStorage, options: dict[str, Any], *, is_loaded_first: bool
) -> None:
    async def calls_so_far(_request: web.Request) -> web.Response:
        return web.json_response(faulty.calls)

    client = await connect(calls_so_far, storage=faulty, forgets=True, **options)

    response = await client.get("/calls_so_far", headers=signed("apple"))

    assert await response.json() == (["load"] if is_loaded_first else [])


async def test_calls_of_get_session_that_meet_share_one_session_and_one_load(
    connect: Connect, faulty: FaultyStorage, storage: Storage
) -> None:
    async def together(request: web.Request) -> web.Response:
        sessions = await asyncio.gather(*(get_session(request) for _ in range(20)))
        return web.json_response(len({id(session) for session in sessions}))

    await keep(storage, "apple", fruit="apple")
    client = await connect(together, storage=faulty, forgets=True)

    response = await client.get("/together", headers=signed("apple"))

    assert await response.json() == 1
    assert faulty.calls.count("load") == 1


async def test_after_calls_of_get_session_that_met_the_session_can_be_saved(
    connect: Connect, storage: Storage
) -> None:
    async def together(request: web.Request) -> web.Response:
        session, *_ = await asyncio.gather(*(session_of(request) for _ in range(3)))
        session["fruit"] = "pear"
        return web.json_response(await asyncio.wait_for(session.save(), 5))

    await keep(storage, "apple", fruit="apple")
    client = await connect(together, forgets=True)

    response = await client.get("/together", headers=signed("apple"))

    assert await response.json() is True
    assert await kept(storage, "apple") == {"fruit": "pear"}


async def test_without_a_cookie_the_storage_is_not_asked(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(show, storage=faulty)

    response = await client.get("/show")

    assert (await response.json())["new"] is True
    assert faulty.calls == []


@pytest.mark.asvs("7.6.2")
async def test_a_new_session_that_stays_empty_is_not_kept_and_sets_no_cookie(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(show, storage=faulty)

    response = await client.get("/show")

    assert faulty.calls == []
    assert cookies_set(response) == []
    assert response.headers["Vary"] == "Cookie"


@pytest.mark.asvs("7.2.1")
@pytest.mark.nist("5.1-a")
@pytest.mark.parametrize("value", FORGERIES.values(), ids=FORGERIES)
async def test_where_the_signature_fails_the_storage_is_not_asked(
    connect: Connect, faulty: FaultyStorage, storage: Storage, value: str
) -> None:
    await keep(storage, "apple", fruit="apple")
    client = await connect(show, storage=faulty, forgets=True)

    response = await client.get("/show", headers={"Cookie": f"sid={value}"})

    assert response.status == 200
    assert (await response.json())["data"] == {}
    assert faulty.calls == []


async def test_the_first_cookie_whose_signature_holds_is_used(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", fruit="apple")
    await keep(storage, "pear", fruit="pear")
    sign = Signer(SECRET).sign
    client = await connect(show, forgets=True)

    header = f"sid=planted; other=1; sid={sign('apple')}; sid={sign('pear')}"
    response = await client.get("/show", headers={"Cookie": header})

    assert (await response.json())["id"] == "apple"


async def test_a_cookie_whose_name_only_ends_with_ours_is_another_one(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", fruit="apple")
    client = await connect(show, forgets=True)

    header = f"mysid={Signer(SECRET).sign('apple')}"
    response = await client.get("/show", headers={"Cookie": header})

    assert (await response.json())["data"] == {}


async def test_a_quoted_cookie_is_read(connect: Connect, storage: Storage) -> None:
    await keep(storage, "apple", fruit="apple")
    client = await connect(show, forgets=True)

    header = f'sid="{Signer(SECRET).sign("apple")}"'
    response = await client.get("/show", headers={"Cookie": header})

    assert (await response.json())["id"] == "apple"


@pytest.mark.asvs("7.2.1")
@pytest.mark.nist("5.1-a", "5.1-d")
async def test_an_unknown_id_is_never_adopted(connect: Connect, storage: Storage) -> None:
    client = await connect(put, forgets=True)

    response = await client.get("/put?fruit=apple", headers=signed("chosen-by-somebody"))

    assert await response.text() != "chosen-by-somebody"
    assert await storage.load("chosen-by-somebody") is None
    assert await kept(storage, await response.text()) == {"fruit": "apple"}


async def test_a_genid_that_chooses_the_lost_id_again_keeps_the_new_session(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(views, genid=lambda _request: "apple")
    await client.get("/views")
    await storage.delete("apple")

    counts = [await (await client.get("/views")).json() for _ in range(2)]

    assert counts == [1, 2]


@pytest.mark.asvs("7.2.3")
async def test_an_id_that_is_taken_is_refused_and_not_shared(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(put, genid=lambda _request: "apple", forgets=True)
    await client.get("/put?of=first")

    response = await client.get("/put?of=second")

    assert response.status == 500
    assert cookies_set(response) == []
    assert await kept(storage, "apple") == {"of": "first"}
    assert "IdTaken" in caplog.text


@pytest.mark.parametrize("option", ["genid", "cookie"])
async def test_a_function_that_a_session_waits_for_cannot_ask_for_it(
    connect: Connect, caplog: pytest.LogCaptureFixture, option: str
) -> None:
    async def asking(request: web.Request) -> NoReturn:
        await get_session(request)
        raise AssertionError("there was a session before there could be one")

    options: dict[str, Any] = {option: asking}
    client = await connect(put, **options)

    async with asyncio.timeout(5):
        response = await client.get("/put")

    assert response.status == 500
    assert "genid and cookie of SessionOptions cannot ask for the session" in caplog.text


async def test_genid_may_be_a_coroutine_function(connect: Connect) -> None:
    async def genid(request: web.Request) -> str:
        await asyncio.sleep(0)
        return f"id-of-{request.path}"

    client = await connect(put, genid=genid)

    response = await client.get("/put?fruit=apple")

    assert await response.text() == "id-of-/put"


@pytest.mark.parametrize(
    ("answer", "shown"), [("", "''"), (None, "NoneType"), (42, "int"), (b"apple", "bytes")]
)
async def test_a_genid_that_returns_no_str_is_a_clear_error_that_shows_no_id(
    connect: Connect, caplog: pytest.LogCaptureFixture, answer: object, shown: str
) -> None:
    client = await connect(put, genid=lambda _request: answer)

    response = await client.get("/put?fruit=apple")

    assert response.status == 500
    assert f"genid returned {shown}: it must return a str that is not empty" in caplog.text


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("a\ud800b", "with a lone surrogate"),
        ("a" * 1001, "of 1001 bytes: 1000 at the most"),
        ("ä" * 501, "of 1002 bytes: 1000 at the most"),
        ("a\nb", "with a control character"),
        ("a\x7f", "with a control character"),
        ("a\x85", "with a control character"),
    ],
    ids=["surrogate", "long", "long in bytes", "newline", "delete", "next line"],
)
async def test_a_genid_that_returns_what_cannot_be_an_id_is_answered_and_named(
    connect: Connect, caplog: pytest.LogCaptureFixture, answer: str, complaint: str
) -> None:
    client = await connect(put, genid=lambda _request: answer)

    response = await client.get("/put?fruit=apple")

    assert response.status == 500
    assert f"OptionsError: genid returned a str {complaint}" in caplog.text


@pytest.mark.parametrize("answer", ["a" * 1000, "ä" * 500, "a b;,\u2028=🍏"], ids=ascii)
async def test_any_other_id_serves(connect: Connect, answer: str) -> None:
    client = await connect(views, genid=lambda _request: answer)

    counts = [await (await client.get("/views")).json() for _ in range(2)]

    assert counts == [1, 2]


@pytest.mark.parametrize("planted", [1, 3, 40])
async def test_cookies_whose_records_are_gone_do_not_push_ours_aside(
    connect: Connect, faulty: FaultyStorage, storage: Storage, planted: int
) -> None:
    await keep(storage, "apple", views=1)
    client = await connect(views, storage=faulty, touch_after=60, forgets=True)
    gone = [signed(f"gone-{number}")["Cookie"] for number in range(planted)]
    cookies = "; ".join([*gone, gone[0], signed("apple")["Cookie"]])
    await client.get("/views", headers={"Cookie": gone[0]})
    faulty.calls.clear()

    responses = [await client.get("/views", headers={"Cookie": cookies}) for _ in range(2)]

    assert [await response.json() for response in responses] == [2, 3]
    assert [cookies_set(response) for response in responses] == [[], []]
    assert faulty.calls.count("load") == 2 * (planted + 1)


async def test_where_every_record_is_gone_a_new_session_begins(
    connect: Connect, storage: Storage
) -> None:
    client = await connect(views, forgets=True)
    cookies = "; ".join(signed(f"gone-{number}")["Cookie"] for number in range(3))

    responses = [await client.get("/views", headers={"Cookie": cookies}) for _ in range(2)]

    assert [await response.json() for response in responses] == [1, 1]
    assert all("gone" not in cookies_set(response)[0] for response in responses)


async def test_a_cookie_with_an_older_secret_behind_one_that_is_gone_is_signed_anew(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", views=1)
    client = await connect(views, secret=[SECRET, "an older secret"], forgets=True)
    ours = signed("apple", "an older secret")["Cookie"]

    response = await client.get("/views", headers={"Cookie": f"{signed('gone')['Cookie']}; {ours}"})

    assert await response.json() == 2
    assert cookies_set(response)[0].startswith(signed("apple")["Cookie"])


@pytest.mark.asvs("7.3.1", "7.4.1")
@pytest.mark.nist("5.1-5", "5.1.1-4", "5.2-b")
async def test_an_expired_session_begins_anew_under_another_id(
    connect: Connect, until_expired: float
) -> None:
    client = await connect(put, show, idle_timeout=0.1)
    first_id = await (await client.get("/put?fruit=apple")).text()
    await asyncio.sleep(until_expired)

    found = await (await client.get("/show")).json()

    assert found["new"] is True
    assert found["id"] != first_id
    assert found["data"] == {}


@pytest.mark.asvs("7.3.2", "7.4.1")
@pytest.mark.nist("5.1-5", "5.2-a", "5.2-b")
async def test_the_absolute_timeout_ends_a_session_that_still_has_a_record(
    connect: Connect, storage: Storage
) -> None:
    record = {
        "cookie": {"originalMaxAge": None, "expires": None, "httpOnly": True, "path": "/"},
        "fruit": "apple",
        "__aiosess": {"created": time.time() - 61},
    }
    await storage.create("apple", json.dumps(record).encode(), 3600)
    client = await connect(show, absolute_timeout=60, idle_timeout=60, forgets=True)

    response = await client.get("/show", headers=signed("apple"))

    assert (await response.json())["data"] == {}
    assert await storage.load("apple") is None


async def test_the_absolute_timeout_leaves_a_younger_session_alone(
    connect: Connect, storage: Storage
) -> None:
    record = {
        "cookie": {"originalMaxAge": None, "expires": None, "httpOnly": True, "path": "/"},
        "fruit": "apple",
        "__aiosess": {"created": time.time() - 30},
    }
    await storage.create("apple", json.dumps(record).encode(), 3600)
    client = await connect(show, absolute_timeout=60, idle_timeout=60, forgets=True)

    response = await client.get("/show", headers=signed("apple"))

    assert (await response.json())["data"] == {"fruit": "apple"}


async def test_a_session_by_express_grows_old_from_when_it_was_first_seen(
    connect: Connect, storage: Storage
) -> None:
    await keep(storage, "apple", ttl=3600, fruit="apple")
    client = await connect(show, absolute_timeout=0.2, idle_timeout=0.2, forgets=True)

    first = await (await client.get("/show", headers=signed("apple"))).json()
    await asyncio.sleep(0.3)
    second = await (await client.get("/show", headers=signed("apple"))).json()

    assert first["data"] == {"fruit": "apple"}
    assert second["data"] == {}


BROKEN = {
    "not JSON": b"\xff\x00 not JSON",
    "empty": b"",
    "cut short": b'{"cookie": {"originalMaxAge": nul',
    "not JSON: NaN": b'{"cookie": {}, "n": NaN}',
    "a number beyond float": b'{"cookie": {}, "n": [{"much": 1e400}]}',
    "a list": b"[1, 2]",
    "a str": b'"cookie"',
    "null": b"null",
    "without a cookie": b'{"fruit": "apple"}',
    "a cookie that is no object": b'{"cookie": 5, "fruit": "apple"}',
    "nested too deep": b'{"cookie": {}, "n": ' + b"[" * 5000 + b"]" * 5000 + b"}",
}


@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN)
async def test_a_record_that_cannot_be_read_counts_as_absent(
    connect: Connect, storage: Storage, payload: bytes
) -> None:
    await storage.create("apple", payload, 60)
    client = await connect(show, forgets=True)

    response = await client.get("/show", headers=signed("apple"))

    found = await response.json()
    assert response.status == 200
    assert found["new"] is True
    assert found["id"] != "apple"
    assert found["data"] == {}


@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN)
async def test_a_record_that_cannot_be_read_is_replaced_by_what_is_put_in(
    connect: Connect, storage: Storage, payload: bytes
) -> None:
    await storage.create("apple", payload, 60)
    client = await connect(put, forgets=True)

    new_id = await (await client.get("/put?fruit=pear", headers=signed("apple"))).text()

    assert await kept(storage, new_id) == {"fruit": "pear"}
    assert await storage.load("apple") is None


@pytest.mark.parametrize("payload", BROKEN.values(), ids=BROKEN)
async def test_a_record_that_cannot_be_read_stays_as_it_is_until_something_is_put_in(
    connect: Connect, storage: Storage, payload: bytes
) -> None:
    await storage.create("apple", payload, 60)
    client = await connect(show, forgets=True)

    await client.get("/show", headers=signed("apple"))

    stored = await storage.load("apple")
    assert stored is not None
    assert stored.payload == payload


async def test_a_record_that_cannot_be_read_is_logged_once_and_without_its_id(
    connect: Connect, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    await storage.create("apple-id", b"[1, 2]", 60)
    client = await connect(show, forgets=True)

    await client.get("/show", headers=signed("apple-id"))
    await client.get("/show", headers=signed("apple-id"))

    messages = [record.getMessage() for record in caplog.records if record.name == "aiosess"]
    said = [message for message in messages if "cannot be read" in message]
    assert len(said) == 1
    assert "list and not an object" in said[0]
    assert "apple-id" not in caplog.text


ODD = {
    "an endless max_age": {"cookie": {"originalMaxAge": 1e300}},
    "a max_age far beyond any date": {"cookie": {"originalMaxAge": 9007199254740991}},
    "a max_age that is a str": {"cookie": {"originalMaxAge": "60000"}},
    "a negative max_age": {"cookie": {"originalMaxAge": -1}},
    "own attributes of the wrong types": {
        "cookie": {},
        "__aiosess": {"own": {"samesite": 5, "path": None, "expires": "soon", "priority": []}},
    },
    "own attributes that are none": {"cookie": {}, "__aiosess": {"own": {"colour": "red"}}},
    "a beginning that is a str": {"cookie": {}, "__aiosess": {"created": "yesterday"}},
    "a beginning far in the future": {"cookie": {}, "__aiosess": {"created": 1e300}},
    "a reserved key that is no object": {"cookie": {}, "__aiosess": 5},
    "an alias that leads to itself": {
        "cookie": {},
        "__aiosess": {"renewed_to": "apple", "until": 1e12},
    },
    "an alias that leads nowhere": {
        "cookie": {},
        "__aiosess": {"renewed_to": "nowhere", "until": 1e12},
    },
}


@pytest.mark.parametrize("record", ODD.values(), ids=ODD)
async def test_a_record_with_odd_details_is_never_a_500(
    connect: Connect, storage: Storage, record: dict[str, Any]
) -> None:
    await storage.create("apple", json.dumps(record).encode(), 60)
    client = await connect(views, rolling=True, absolute_timeout=90000, forgets=True)

    response = await client.get("/views", headers=signed("apple"))

    assert response.status == 200
    assert await response.json() == 1


async def test_a_record_by_express_is_read(connect: Connect, storage: Storage) -> None:
    payload = (
        b'{"cookie":{"originalMaxAge":60000,"expires":"2026-11-23T12:00:00.000Z",'
        b'"httpOnly":true,"path":"/"},"views":3,"user":{"name":"Bob"}}'
    )
    await storage.create("apple", payload, 60)
    client = await connect(show, forgets=True)

    response = await client.get("/show", headers=signed("apple"))

    assert (await response.json())["data"] == {"views": 3, "user": {"name": "Bob"}}


async def test_keys_that_are_called_like_members_are_only_data(
    connect: Connect, storage: Storage
) -> None:
    async def still_saves(request: web.Request) -> web.Response:
        session = await session_of(request)
        return web.json_response([await session.save(), session["save"]])

    await keep(storage, "apple", save="data", id="data", new="data", destroy="data")
    client = await connect(still_saves, forgets=True)

    response = await client.get("/still_saves", headers=signed("apple"))

    assert await response.json() == [True, "data"]


async def test_outside_the_cookies_path_there_is_no_session_and_no_storage_call(
    connect: Connect, faulty: FaultyStorage
) -> None:
    client = await connect(
        kind, storage=faulty, cookie=CookieOptions(path="/elsewhere"), forgets=True
    )

    response = await client.get("/kind", headers=signed("apple"))

    assert await response.text() == "NoneType"
    assert faulty.calls == []
