"""Sessions that Django began go on, by the code of from-django.md."""

from __future__ import annotations

import pickle
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient
from pytest_aiohttp import AiohttpClient
from redis.asyncio import Redis

from aiosess import get_session
from tests.interop.documents import code_of
from tests.servers import RedisServer

# All of this was written by Django 5.2.
SECRET_KEY: Final = "the secret key of a Django project, as in its settings"
PASSWORD: Final = (
    "pbkdf2_sha256$1000000$5d1j4Pcdn0tHzpGZhXROgF$14IRvGz2dXnbpZ8Ecu6h+ZoslfXjLFE9ai2pjiK5fYI="
)
OLD_KEY: Final = "p4ikht1tytca60p5pgx9h32naqzoon4e"
OLD_RECORD: Final = (
    ".eJxVjMkKgzAURf8lawl5mXHZfb-gLfIyWK0SwZiV-O-N4KLlbi53ODvpsGxDV3JcuzGQlgBpfjOHforpLMIH03uhfkn"
    "bOjp6TujVZnpfQpxv1_YPMGAe6tuBs9ZzBCstAwvGRi1YECBBS6m8Md5IAQ5V32tUwJ3Q0lWhMhI4VqjHdSPtYyd5KpX4"
    "LIxFWfNEWn68GpJjrDaVeT6-LidD1w:1xWpdT:w2HLSodDOq7oPjE3KdaWSztBkvpNjvJ0s_Whh7p5kZ0"
)
OLD_DATA: Final = {
    "_auth_user_id": "1",
    "_auth_user_backend": "django.contrib.auth.backends.ModelBackend",
    "_auth_user_hash": "b1b88c2a1848018178e630d31416445c77c7431ba5ff6a512b364b4b4a57412a",
    "cart": [{"sku": "ä", "n": 2}],
    "seen": None,
}
SHORT_RECORD: Final = "eyJhIjoxfQ:1xWpgL:2hKWzpPq4O5hzXADpKD7F5C2gheTTmA45vMqoLmimmk"
# With twenty things in the cart, after set_expiry(3600).
EXPIRING_RECORD: Final = (
    ".eJztkkEKwjAQRe8y61IyTZqELt17ApUySUdbLak0DSjFuxvBhR5BkNkM7_95q1mhpbT0bYo8t0MHDSAUn8yRv3B4Bd2Z"
    "wmkq_RSWeXDlq1K-01hup47Hzbv7Jegp9vnaobPWV4RWWYEWjWUtRSdRoVaq9sZ4oyQ6qo9HTTVWTmrl8lBtFFaUpZ7m"
    "BZrdCvGSsnGfhGCVeYCmehR__Hv4UEBkzmtI45i_JnKMwxRavl2H-Q6N1EI8nhCWw2Q:1xWpdT:"
    "8T3WFNI5YVxu96yfy01VOQn0c_redZToYyqHL1rXjBY"
)
TABLE: Final = (
    'CREATE TABLE "django_session" ("session_key" varchar(40) NOT NULL PRIMARY KEY, '
    '"session_data" text NOT NULL, "expire_date" datetime NOT NULL)'
)
PICKLED: Final = (
    b"\x80\x05\x95\xd6\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\r_auth_user_id\x94\x8c\x011\x94\x8c\x12"
    b"_auth_user_backend\x94\x8c)django.contrib.auth.backends.ModelBackend\x94\x8c\x0f"
    b"_auth_user_hash\x94\x8c@b1b88c2a1848018178e630d31416445c77c7431ba5ff6a512b364b4b4a57412a\x94"
    b"\x8c\x04cart\x94]\x94}\x94(\x8c\x03sku\x94\x8c\x02\xc3\xa4\x94\x8c\x01n\x94K\x02ua\x8c\x04seen"
    b"\x94Nu."
)

Client = TestClient[web.Request, web.Application]


class Database:
    """The table of Django's sessions."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.do(TABLE)

    def do(self, statement: str, *values: object) -> Any:
        """Run one statement, and return the first row."""
        with closing(sqlite3.connect(self.path)) as database, database:
            return database.execute(statement, values).fetchone()

    def keep(self, record: str = OLD_RECORD, *, life: float = 3600) -> None:
        """Keep *record*, as Django writes dates, for *life* seconds from now."""
        ends_at = (datetime.now(UTC) + timedelta(seconds=life)).replace(tzinfo=None)
        self.do("REPLACE INTO django_session VALUES (?, ?, ?)", OLD_KEY, record, str(ends_at))

    def life(self) -> float:
        """Return how many seconds the record has left."""
        (ends_at,) = self.do("SELECT expire_date FROM django_session")
        left = datetime.fromisoformat(ends_at).replace(tzinfo=UTC) - datetime.now(UTC)
        return left.total_seconds()


@pytest.fixture
def database(tmp_path: Path) -> Database:
    database = Database(tmp_path / "db.sqlite3")
    database.keep()
    return database


@pytest.fixture
def code(
    database: Database, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What the page defines, for this project."""
    monkeypatch.setenv("DJANGO_SECRET_KEY", SECRET_KEY)
    monkeypatch.setenv("DJANGO_DATABASE", str(database.path))
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    return code_of("migrating/from-django.md")


async def show(request: web.Request) -> web.Response:
    session = await get_session(request)
    return web.json_response([session.new, dict(session)])


async def see_other(request: web.Request) -> web.Response:
    raise web.HTTPSeeOther("/")


@pytest.fixture
async def browser(code: dict[str, Any], aiohttp_client: AiohttpClient) -> Client:
    """One that comes with the cookie of Django."""
    app = code["app"]
    for handler in (show, see_other):
        app.router.add_get(f"/{handler.__name__}", handler)
    client: Client = await aiohttp_client(app)
    client.session.cookie_jar.update_cookies({"sessionid": OLD_KEY}, client.make_url("/"))
    return client


def cookies_in(client: Client) -> set[str]:
    return {each.key for each in client.session.cookie_jar}


async def test_an_old_session_is_copied_once_and_goes_on_as_a_new_one(browser: Client) -> None:
    first = await browser.get("/show")
    cookies = cookies_in(browser)
    second = await browser.get("/show")

    assert [await each.json() for each in (first, second)] == [[True, OLD_DATA], [False, OLD_DATA]]
    assert cookies == {"sid"}


async def test_a_record_that_was_too_short_to_compress_is_read_as_well(
    browser: Client, database: Database
) -> None:
    database.keep(SHORT_RECORD)

    response = await browser.get("/show")

    assert await response.json() == [True, {"a": 1}]


async def test_an_age_that_django_gave_one_session_is_its_max_age(
    browser: Client, database: Database
) -> None:
    database.keep(EXPIRING_RECORD)

    response = await browser.get("/show")

    assert response.cookies["sid"]["max-age"] == "3600"
    assert (await response.json())[1].keys() == OLD_DATA.keys()


async def test_a_redirect_takes_the_old_cookie_away_as_well(browser: Client) -> None:
    await browser.get("/see_other", allow_redirects=False)

    assert cookies_in(browser) == {"sid"}


@pytest.mark.parametrize(
    "record",
    [OLD_RECORD[:-1] + "1", OLD_RECORD.replace(".e", ".f"), "a", ""],
    ids=["signature", "data", "neither", "empty"],
)
async def test_a_record_whose_signature_does_not_hold_is_an_empty_session(
    browser: Client, database: Database, record: str
) -> None:
    database.keep(record)

    response = await browser.get("/show")

    assert await response.json() == [True, {}]


async def test_a_session_that_is_there_already_is_not_overwritten(
    browser: Client, database: Database
) -> None:
    await browser.get("/show")
    database.keep(SHORT_RECORD)

    response = await browser.get("/show", cookies={"sessionid": OLD_KEY})

    assert await response.json() == [False, OLD_DATA]


async def test_a_record_that_has_ended_is_an_empty_session(
    browser: Client, database: Database
) -> None:
    database.keep(life=-1)

    response = await browser.get("/show")

    assert await response.json() == [True, {}]


async def test_the_old_record_has_a_minute_left_and_is_not_kept_alive_by_being_asked_for(
    browser: Client, database: Database
) -> None:
    await browser.get("/show")
    left = database.life()
    database.keep(life=10)
    browser.session.cookie_jar.clear()

    again = await browser.get("/show", cookies={"sessionid": OLD_KEY})

    assert 0 < left <= 60
    assert await again.json() == [True, OLD_DATA]
    assert 0 < database.life() <= 10


@pytest.mark.parametrize(("password", "is_current"), [(PASSWORD, True), (f"{PASSWORD}=", False)])
def test_a_login_from_before_a_change_of_the_password_can_be_told(
    code: dict[str, Any], password: str, *, is_current: bool
) -> None:
    assert code["is_current"](OLD_DATA, password) is is_current


def test_a_session_without_a_login_is_no_current_one(code: dict[str, Any]) -> None:
    assert code["is_current"]({}, PASSWORD) is False


# The engine "cache".


@pytest.fixture
async def cache(code: dict[str, Any], redis_server: RedisServer) -> AsyncIterator[Redis]:
    """Django's cache, which the page is told to read."""
    code["old_data"] = code["cached_data"]
    async with code["redis"], Redis.from_url(redis_server.url) as client:
        yield client
        await client.delete(f":1:django.contrib.sessions.cache{OLD_KEY}")


async def test_a_session_in_the_cache_is_copied_as_well(browser: Client, cache: Redis) -> None:
    key = f":1:django.contrib.sessions.cache{OLD_KEY}"
    await cache.set(key, PICKLED, ex=3600)

    response = await browser.get("/show")

    assert await response.json() == [True, OLD_DATA]
    assert 0 < await cache.ttl(key) <= 60


RAN: Final[list[str]] = []


def run(what: str) -> None:
    RAN.append(what)


class RunsCode:
    """What a pickle may do to whoever reads it."""

    def __reduce__(self) -> Any:
        return (run, ("something",))


@pytest.mark.parametrize("value", [datetime(2026, 1, 1, tzinfo=UTC), RunsCode()])
async def test_a_pickle_that_names_more_than_plain_data_is_an_empty_session(
    browser: Client, cache: Redis, value: object
) -> None:
    key = f":1:django.contrib.sessions.cache{OLD_KEY}"
    await cache.set(key, pickle.dumps({"at": value}), ex=3600)

    response = await browser.get("/show")

    assert await response.json() == [True, {}]
    assert RAN == []
