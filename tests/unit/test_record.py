"""What a storage keeps: the JSON of express-session, read with suspicion."""

from __future__ import annotations

import dataclasses
import enum
import io
import json
import os
import random
from collections import deque
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any
from uuid import UUID

import msgspec
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from aiosess import CookieOptions, RecordError, SessionCookie, UnserializableValue
from aiosess.records.bonds import Bond
from aiosess.records.format import (
    RESERVED_KEYS,
    Alias,
    Former,
    Origin,
    Record,
    check_value,
    decode,
    decode_value,
    encode,
    encode_alias,
    encode_former,
    encode_usual,
    encode_value,
    instants_of,
    largest_keys,
    mark_of,
    origin_of,
    start_of,
)
from aiosess.records.migration import Migration
from aiosess.records.usual import usual_of
from aiosess.storages import Stored
from aiosess.timeouts import LONGEST

NOW = 1_700_000_000.25
ID = "apple"
IN_2030 = datetime(2030, 1, 1, tzinfo=UTC)
FORMER = Former(Record({"n": 1}, None, {}, NOW), "new", NOW, is_same_principal=False)


def options(**given: Any) -> CookieOptions:
    return CookieOptions(**{"secure": False, **given})


def encoded(
    data: dict[str, Any], cookie: SessionCookie | None = None, *, began_at: float = NOW - 60
) -> bytes:
    cookie = SessionCookie(options()) if cookie is None else cookie
    return encode(ID, data, cookie, created_at=began_at, now=NOW)


def read(payload: bytes, now: float = NOW) -> tuple[Any, ...] | None:
    """Return what the fast way reads: the data, when the session began, its login, and both."""
    state = usual_of(Migration())(ID, Stored(payload, 1), options(), now)
    if state is None:
        return None
    return state.data, state.created_at, state.authenticated_at, state.instants


def decoded(payload: bytes) -> Record:
    record = decode(payload)
    assert isinstance(record, Record)
    return record


# The fast way of an application that says its version


def stamped(version: int, data: dict[str, Any] | None = None) -> bytes:
    return encode(
        ID,
        {"n": 1} if data is None else data,
        SessionCookie(options()),
        created_at=NOW - 60,
        now=NOW,
        authenticated_at=NOW - 30,
        unknown={"version": version},
    )


def test_a_record_of_the_same_version_is_read_the_fast_way() -> None:
    payload = stamped(3)

    state = usual_of(Migration(3))(ID, Stored(payload, 1), options(), NOW)

    assert state is not None
    assert (state.data, state.authenticated_at) == ({"n": 1}, NOW - 30)
    assert state.unknown == state.beginning == {"version": 3}
    assert state.instants == b'%.2f,"auth":%.2f,"version":3' % (NOW - 60, NOW - 30)


@pytest.mark.parametrize("version", [2, 4, 33])
def test_a_record_of_another_version_takes_more_than_the_fast_way(version: int) -> None:
    assert usual_of(Migration(3))(ID, Stored(stamped(version), 1), options(), NOW) is None


def test_a_record_without_a_version_takes_more_than_the_fast_way_where_there_is_one() -> None:
    payload = encoded({"deep": {"version": 3}, "n": [{"version": 3}, 1]})

    assert usual_of(Migration(3))(ID, Stored(payload, 1), options(), NOW) is None


def test_a_record_with_a_version_takes_more_than_the_fast_way_where_there_is_none() -> None:
    assert usual_of(Migration())(ID, Stored(stamped(3), 1), options(), NOW) is None


def test_a_record_of_a_version_from_the_future_is_read_as_a_whole() -> None:
    assert usual_of(Migration(3))(ID, Stored(stamped(3), 1), options(), NOW - 1000) is None


# The format


def test_a_record_is_what_express_writes_and_one_key_of_our_own() -> None:
    content = json.loads(encoded({"views": 1}))

    assert content["__aiosess"].pop("rev")
    assert content == {
        "__aiosess": {"mark": "OnvT4jYKPS", "created": NOW - 60},
        "cookie": {"originalMaxAge": None, "sameSite": "lax"},
        "views": 1,
    }


def test_a_record_says_when_its_session_began_to_the_millisecond_and_never_later() -> None:
    payload = encoded({"views": 1}, began_at=NOW + 0.0006)

    assert json.loads(payload)["__aiosess"]["created"] == NOW


def test_a_beginning_that_was_read_is_written_as_it_was() -> None:
    began_at = NOW + 0.123

    assert decoded(encoded({"views": 1}, began_at=began_at)).created_at == began_at


def test_a_revision_is_eleven_characters() -> None:
    content = json.loads(encoded({"views": 1}))

    assert len(content["__aiosess"]["rev"]) == 11


def test_no_two_payloads_are_the_same_though_their_data_are() -> None:
    payloads = {encoded({"views": 1}) for _ in range(1000)}

    assert len(payloads) == 1000


def test_payloads_differ_though_the_application_seeds_its_random_numbers() -> None:
    random.seed(1)
    payload = encoded({"views": 1})

    random.seed(1)

    assert encoded({"views": 1}) != payload


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
def test_a_forked_process_writes_other_payloads() -> None:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, encoded({"views": 1}))
        os._exit(0)
    os.waitpid(child, 0)

    theirs = os.read(reading, 10_000)

    assert json.loads(theirs)["views"] == 1
    assert encoded({"views": 1}) != theirs
    os.close(reading)
    os.close(writing)


def test_the_cookie_in_the_record_has_every_attribute_in_the_words_of_express() -> None:
    cookie = SessionCookie(
        options(
            domain="example.org",
            path="/shop",
            max_age=60,
            secure=True,
            httponly=False,
            samesite=False,
            partitioned=True,
            priority="high",
        )
    )

    payload = encoded({}, cookie)

    assert json.loads(payload)["cookie"] == {
        "originalMaxAge": 60_000,
        "expires": "2023-11-14T22:14:20.250Z",
        "secure": True,
        "httpOnly": False,
        "domain": "example.org",
        "path": "/shop",
        "partitioned": True,
        "priority": "high",
    }


def test_a_fixed_end_is_written_as_the_time_that_is_left() -> None:
    cookie = SessionCookie(options(expires=datetime.fromtimestamp(NOW, UTC) + timedelta(hours=1)))

    assert json.loads(encoded({}, cookie))["cookie"]["originalMaxAge"] == 3_600_000


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**53 + 1,
        2**70,
        -(2**70),
        0.1,
        -0.5,
        1e300,
        5e-324,
        "",
        "ä\u20ac\U0001f600",
        "a\x00b",
        "\ud800",
        [],
        {},
        [1, [2, [3]]],
        {"a": {"b": [None, True, 1.5]}},
        {"": 1, "cookie": 2, "__aiosess": 3},
    ],
    ids=repr,
)
def test_a_value_comes_back_as_it_went_in(value: object) -> None:
    check_value(value, "session['key']")

    back = decoded(encoded({"key": value})).data["key"]

    assert back == value
    assert type(back) is type(value)


def test_a_tuple_comes_back_as_a_list() -> None:
    check_value((1, (2,)), "session['key']")

    assert decoded(encoded({"key": (1, (2,))})).data == {"key": [1, [2]]}


def test_a_key_may_be_any_text() -> None:
    data = {"\ud800": 1, "ä": 2, "": 3}

    assert decoded(encoded(data)).data == data


def test_the_beginning_of_the_session_comes_back() -> None:
    assert decoded(encoded({})).created_at == NOW - 60


# The session's own cookie attributes


@pytest.mark.parametrize(
    ("base", "name", "value"),
    [
        ({}, "max_age", 60),
        ({}, "expires", IN_2030),
        ({}, "path", "/shop"),
        ({}, "samesite", "strict"),
        ({}, "httponly", False),
        ({"max_age": 60}, "max_age", 5),
        ({"max_age": 60}, "max_age", None),
        ({"max_age": 60}, "expires", IN_2030),
        ({"max_age": 60}, "expires", None),
        ({"expires": IN_2030}, "max_age", 60),
        ({"expires": IN_2030}, "max_age", None),
        ({"expires": IN_2030}, "expires", None),
        ({"expires": IN_2030}, "path", "/shop"),
    ],
)
def test_a_sessions_own_cookie_is_the_same_after_it_was_kept(
    base: dict[str, Any], name: str, value: object
) -> None:
    cookie = SessionCookie(options(**base))
    setattr(cookie, name, value)

    back = SessionCookie(cookie.base, decoded(encoded({}, cookie)).own_attributes(cookie.base))

    assert getattr(back, name) == value
    assert (back.max_age, back.expires) == (cookie.max_age, cookie.expires)
    assert back.path == cookie.path


@pytest.mark.parametrize(
    "base",
    [{}, {"max_age": 60}, {"expires": IN_2030}, {"max_age": 1 / 3}, {"max_age": 12_342.8571428}],
)
def test_a_session_without_a_cookie_of_its_own_has_none_after_it_was_kept(
    base: dict[str, Any],
) -> None:
    cookie = SessionCookie(options(**base))

    assert decoded(encoded({}, cookie)).own_attributes(cookie.base) == {}


def test_a_session_keeps_its_max_age_when_the_option_changes() -> None:
    record = decoded(encoded({}, SessionCookie(options(max_age=60))))

    assert record.own_attributes(options(max_age=5)) == {"max_age": 60}


# Whose it is, and what a newer version wrote


@pytest.mark.parametrize(
    "payload",
    [
        encode(ID, {"n": 1}, SessionCookie(options()), created_at=NOW, now=NOW),
        encode(ID, {}, SessionCookie(options(max_age=60)), created_at=NOW, now=NOW),
        encode(
            ID, {"n": 1}, SessionCookie(options()), created_at=NOW, now=NOW, authenticated_at=NOW
        ),
        encode(
            ID, {"n": 1}, SessionCookie(options()), created_at=NOW, now=NOW, unknown={"later": 1}
        ),
        encode(ID, {"a": "\ud800"}, SessionCookie(options()), created_at=NOW, now=NOW),
        encode_alias(ID, Alias("new", NOW)),
        encode_former(ID, FORMER, SessionCookie(options()), now=NOW),
    ],
    ids=["usual", "with an end", "logged in", "by a newer one", "rare text", "alias", "former"],
)
def test_a_payload_begins_with_the_mark_of_its_id(payload: bytes) -> None:
    assert payload.startswith(start_of(ID))
    assert decode_value(payload)["__aiosess"]["mark"] == mark_of(ID)


def test_a_mark_takes_ten_characters_and_tells_ids_apart() -> None:
    marks = {mark_of(f"id {number}") for number in range(1000)}

    assert len(marks) == 1000
    assert {len(mark) for mark in marks} == {10}


def test_a_record_of_another_id_is_read_as_a_whole() -> None:
    payload = encode("pear", {"n": 1}, SessionCookie(options()), created_at=NOW, now=NOW)

    assert read(payload) is None
    assert decode(payload) == Record({"n": 1}, None, {}, NOW, is_in_clear=True)


def test_the_mark_of_a_record_is_found_wherever_it_stands() -> None:
    written = json.loads(encoded({"n": 1}))
    written["__aiosess"] = {"mark": mark_of(ID), "created": NOW}
    payload = json.dumps({**written, "cart": [1]}).encode()

    assert origin_of(payload) == Origin(mark_of(ID), NOW)


@pytest.mark.parametrize(
    ("payload", "origin"),
    [
        (b'{"cookie":{}}', Origin()),
        (b'{"cookie":{},"__aiosess":5}', Origin()),
        (b'{"cookie":{},"__aiosess":{"mark":5,"created":"now"}}', Origin()),
        (b"[]", Origin(is_record=False)),
        (b"OK", Origin(is_record=False)),
        (b"[" * 100_000, Origin(is_record=False)),
    ],
    ids=["Express", "no object", "other types", "a list", "no JSON", "deep"],
)
def test_a_payload_that_does_not_say_where_it_comes_from_is_of_nowhere(
    payload: bytes, origin: Origin
) -> None:
    assert origin_of(payload) == origin


def test_what_a_newer_version_remembers_is_carried_along() -> None:
    unknown = {"later": {"deep": [1]}, "device": "h"}

    payload = encode(
        ID, {"n": 1}, SessionCookie(options()), created_at=NOW, now=NOW, unknown=unknown
    )

    assert decoded(payload).unknown == unknown
    assert decoded(payload).created_at == NOW


def test_what_a_newer_version_remembers_is_not_for_the_fast_way() -> None:
    payload = encode(
        ID, {"n": 1}, SessionCookie(options()), created_at=NOW, now=NOW, unknown={"later": 1}
    )

    assert read(payload) is None


def test_what_is_left_from_before_a_login_keeps_what_a_newer_version_remembers() -> None:
    former = Former(FORMER.record._replace(unknown={"later": 1}), "new", NOW, False)

    found = decode(encode_former(ID, former, SessionCookie(options()), now=NOW))

    assert isinstance(found, Former)
    assert found.record.unknown == {"later": 1}


def test_the_largest_keys_come_first_with_the_bytes_that_they_take() -> None:
    data = {"small": 1, "cart": ["tea"] * 100, "text": "x" * 1000}

    assert largest_keys(data, 2) == (("text", 1009), ("cart", 608))


# Records of Express and of others


def test_a_record_of_express_is_read() -> None:
    payload = (
        b'{"cookie":{"originalMaxAge":60000,"expires":"2030-01-01T00:00:00.000Z",'
        b'"httpOnly":true,"path":"/"},"user":{"name":"Ann"}}'
    )

    assert decode(payload) == Record({"user": {"name": "Ann"}}, 60.0, {}, None)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "not JSON: JSONDecodeError"),
        (b"\x00", "not JSON: JSONDecodeError"),
        (b"\xff\xfe\xfd", "not JSON: UnicodeDecodeError"),
        (b"{", "not JSON: JSONDecodeError"),
        (b'{"cookie":{}}}', "not JSON: JSONDecodeError"),
        (b'{"cookie":{},"a":NaN}', "not JSON: ValueError"),
        pytest.param(
            b'{"cookie":{},"a":' + b"9" * 5000 + b"}", "not JSON: ValueError", id="long integer"
        ),
        (b'{"cookie":{},"a":"\xff"}', "not JSON: UnicodeDecodeError"),
        pytest.param(b"[" * 100_000, "not JSON: RecursionError", id="deep"),
        pytest.param(
            b'{"cookie":{},"a":' + b"[" * 100_000, "not JSON: RecursionError", id="deep inside"
        ),
        (b"[]", "JSON, but list and not an object"),
        (b"null", "JSON, but NoneType and not an object"),
        (b'"text"', "JSON, but str and not an object"),
        (b"{}", "an object without a cookie"),
        (b'{"cookie":null}', "an object without a cookie"),
        (b'{"cookie":"a"}', "an object without a cookie"),
        (b'{"cookie":[]}', "an object without a cookie"),
    ],
)
def test_what_is_not_a_record_is_refused_with_the_reason(payload: bytes, reason: str) -> None:
    with pytest.raises(RecordError) as caught:
        decode(payload)

    assert str(caught.value) == reason


BEYOND_FLOAT = [
    *("1e400", "-1e400", "1.7976931348623159e308", '{"b":[{"c":1e400}]}', "[1,[-1e400]]"),
    pytest.param("9" * 400 + ".5", id="long float"),
    pytest.param('["\\ud800",1e400]', id="beside rare text"),
    pytest.param(f"[{'9' * 400},1e400]", id="beside a long integer"),
]


@pytest.mark.parametrize("number", BEYOND_FLOAT)
@pytest.mark.parametrize(
    "record",
    [
        '{"cookie":{},"a":%s}',
        '{"cookie":{"originalMaxAge":%s}}',
        '{"cookie":{},"__aiosess":{"created":%s}}',
    ],
    ids=["data", "cookie", "reserved key"],
)
def test_a_number_beyond_float_makes_the_whole_record_unreadable(record: str, number: str) -> None:
    with pytest.raises(RecordError, match="a number beyond float"):
        decode((record % number).encode())


def test_a_number_beyond_float_is_refused_also_where_the_frame_is_known() -> None:
    cookie = SessionCookie(options())
    payload = encoded({"a": 123456789}, cookie).replace(b"123456789", b"1e400")

    assert read(payload) is None
    with pytest.raises(RecordError, match="a number beyond float"):
        decode(payload)


@pytest.mark.parametrize("value", [10**400, -(10**400), 1.7976931348623157e308, 5e-324])
def test_a_number_that_python_can_hold_is_read_exactly(value: float) -> None:
    record = decoded(b'{"cookie":{},"a":%s,"b":[%s]}' % ((json.dumps(value).encode(),) * 2))

    assert record.data == {"a": value, "b": [value]}


def test_a_number_that_is_too_small_for_float_is_zero() -> None:
    assert decoded(b'{"cookie":{},"a":1e-400}').data == {"a": 0.0}


@pytest.mark.parametrize(
    ("written", "max_age"),
    [
        ("null", None),
        ("0", None),
        ("-5", None),
        ("true", None),
        ('"60000"', None),
        ("{}", None),
        ("60000", 60.0),
        ("1.5", 0.0015),
        ("999999999999999", LONGEST),
        pytest.param("9" * 400, LONGEST, id="long integer"),
    ],
)
def test_a_max_age_from_elsewhere_is_one_that_a_cookie_can_have(
    written: str, max_age: float | None
) -> None:
    record = decoded(b'{"cookie":{"originalMaxAge":%s}}' % written.encode())

    assert record.max_age == max_age


@pytest.mark.parametrize(
    "meta",
    [
        "null",
        "[]",
        '"text"',
        "{}",
        '{"created":"now"}',
        '{"created":true}',
        '{"created":-1}',
        pytest.param('{"created":%s}' % ("9" * 400), id="long integer"),
        '{"own":[]}',
        '{"own":"text"}',
        '{"own":{"expires":"tomorrow"}}',
        '{"own":{"path":"/;Domain=evil.example"}}',
        '{"renewed_to":5,"until":5}',
        '{"renewed_to":"new","until":"soon"}',
        '{"renewed_to":"new"}',
    ],
)
def test_a_reserved_key_from_elsewhere_is_read_as_far_as_it_makes_sense(meta: str) -> None:
    payload = b'{"cookie":{},"a":1,"__aiosess":%s}' % meta.encode()

    assert decode(payload) == Record({"a": 1}, None, {}, None, is_in_clear=meta.startswith("{"))


@pytest.mark.parametrize("name", ["former", "moved_to", "renewed_to"])
def test_an_id_that_cannot_be_asked_for_leads_nowhere(name: str) -> None:
    payload = b'{"cookie":{},"__aiosess":{"%b":"\\ud800","until":5}}' % name.encode()

    assert decode(payload) == Record({}, None, {}, None, is_in_clear=True)


def test_an_alias_comes_back() -> None:
    alias = Alias("new", NOW + 10)

    assert decode(encode_alias(ID, alias)) == alias


def test_express_finds_no_data_in_an_alias() -> None:
    content = json.loads(encode_alias(ID, Alias("new", NOW)))

    assert content.keys() == {"cookie", "__aiosess"}
    assert content["cookie"]["originalMaxAge"] is None


def test_json_with_rare_text_is_read_as_the_standard_library_does() -> None:
    assert decode_value(b'"\\ud800"') == "\ud800"


# Values that a record cannot hold


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "message", "path"),
    [
        ({1}, "session['key'] is of type set", "session['key']"),
        (b"bytes", "session['key'] is of type bytes", "session['key']"),
        (IN_2030, "session['key'] is of type datetime", "session['key']"),
        (Decimal(1), "session['key'] is of type Decimal", "session['key']"),
        (Colour.RED, "session['key'] is of type Colour", "session['key']"),
        (object, "session['key'] is of type type", "session['key']"),
        (float("nan"), "session['key'] is nan, which JSON does not have", "session['key']"),
        (float("-inf"), "session['key'] is -inf, which JSON does not have", "session['key']"),
        ({1: 2}, "session['key'] has the key 1: JSON has only str keys, use '1'", "session['key']"),
        ([0, {"a": [{1}]}], "session['key'][1]['a'][0] is of", "session['key'][1]['a'][0]"),
        ((float("inf"),), "session['key'][0] is inf", "session['key'][0]"),
        pytest.param(
            10**5000,
            "session['key'] is an integer of more than 4000 digits",
            "session['key']",
            id="long integer",
        ),
    ],
)
def test_a_value_that_json_cannot_hold_is_refused_with_its_path(
    value: object, message: str, path: str
) -> None:
    with pytest.raises(UnserializableValue) as caught:
        check_value(value, "session['key']")

    assert str(caught.value).startswith(message)
    assert caught.value.path == path


@dataclasses.dataclass
class Point:
    x: int = 1


class Size(msgspec.Struct):
    width: int = 1


class Model:
    """As pydantic's are."""

    def model_dump(self, **_how: Any) -> dict[str, Any]:
        return {}


async def answer() -> None:
    """Take no time."""


@pytest.mark.parametrize(
    ("value", "instead"),
    [
        (IN_2030, "value.isoformat()"),
        (IN_2030.date(), "value.isoformat()"),
        (IN_2030.time(), "value.isoformat()"),
        (timedelta(1), "value.total_seconds()"),
        (UUID(int=1), "str(value)"),
        (Decimal(1), "str(value)"),
        (PurePosixPath("/"), "str(value)"),
        (b"bytes", "base64.b64encode(value).decode()"),
        (bytearray(b"bytes"), "base64.b64encode(value).decode()"),
        (Colour.RED, "value.value"),
        ({1}, "sorted(value), or list(value)"),
        (frozenset({1}), "sorted(value), or list(value)"),
        ({}.keys(), "sorted(value), or list(value)"),
        (deque([1]), "list(value)"),
        (range(1), "list(value)"),
        (iter([1]), "list(value)"),
        (MappingProxyType({}), "dict(value)"),
        (Point(), "dataclasses.asdict(value)"),
        (Size(), "msgspec.to_builtins(value)"),
        (Model(), 'value.model_dump(mode="json")'),
        (object(), "str, int, float, bool, None, lists or dicts of them"),
        (Point, "str, int, float, bool, None, lists or dicts of them"),
        (Colour, "str, int, float, bool, None, lists or dicts of them"),
        (len, "str, int, float, bool, None, lists or dicts of them"),
        (io.StringIO(), "str, int, float, bool, None, lists or dicts of them"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_value_that_json_cannot_hold_is_refused_with_what_to_keep_in_its_place(
    value: object, instead: str
) -> None:
    with pytest.raises(UnserializableValue) as caught:
        check_value(value, "session['key']")

    assert str(caught.value).endswith(f", which a session cannot keep: store {instead}")


async def test_a_coroutine_is_refused_as_what_was_not_awaited() -> None:
    coroutine = answer()

    with pytest.raises(UnserializableValue, match="store what it returns: it was not awaited"):
        check_value(coroutine, "session['key']")

    await coroutine


def test_a_request_is_not_called_a_mapping_to_keep() -> None:
    with pytest.raises(UnserializableValue, match="store str, int, float"):
        check_value(make_mocked_request("GET", "/"), "session['key']")


def test_a_value_that_holds_itself_is_refused() -> None:
    value: list[object] = []
    value.append(value)

    with pytest.raises(UnserializableValue, match=r"^session\['key'\] holds itself") as caught:
        check_value(value, "session['key']")

    assert caught.value.path == "session['key']"


class Role(enum.StrEnum):
    ADMIN = "admin"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "plain"),
    [(Role.ADMIN, "admin"), (Level.HIGH, 3), (Text("a"), "a"), ({Text("k"): Text("\ud800")}, None)],
)
def test_kinds_of_str_and_int_are_kept_as_plain_ones(value: Any, plain: object) -> None:
    check_value(value, "session['key']")

    assert decode_value(encode_value(value)) == (value if plain is None else plain)


def nested(levels: int) -> list[Any]:
    """Return lists in lists, *levels* deep."""
    value: list[Any] = []
    for _ in range(levels - 1):
        value = [value]
    return value


def test_what_is_nested_as_deep_as_it_may_be_can_be_written_and_read() -> None:
    value = nested(199)

    check_value(value, "session['deep']")

    assert decode_value(encode_value(value)) == value
    assert isinstance(decode(encode_value({"cookie": {}, "deep": value})), Record)


def test_what_is_nested_deeper_is_refused_by_name() -> None:
    with pytest.raises(UnserializableValue, match=r"^session\['deep'\] .* 200 deep") as error:
        check_value(nested(250), "session['deep']")

    assert error.value.path == "session['deep']"


def test_a_record_that_is_nested_deeper_counts_as_none() -> None:
    with pytest.raises(RecordError, match="200 deep"):
        decode(encode_value({"cookie": {}, "deep": nested(250)}))


def test_a_record_with_many_lists_beside_each_other_is_not_nested() -> None:
    data = {"cart": [["pear", 1] for _ in range(250)]}

    assert decoded(encoded(data)).data == data


# What begins as most records do


def test_a_record_without_attributes_of_its_own_has_the_frame_of_its_options() -> None:
    cookie = SessionCookie(options(domain="example.org", partitioned=False, priority="high"))

    assert cookie.base.frame in encoded({"n": 1}, cookie)


@given(
    st.dictionaries(
        # Other keys a session refuses.
        st.text().filter(lambda key: key not in RESERVED_KEYS),
        st.text() | st.floats(allow_nan=False, allow_infinity=False),
    )
)
def test_such_a_record_is_written_the_same_in_fewer_steps(values: dict[str, Any]) -> None:
    data = {"n": 1, **values}

    payload = encode_usual(data, options().frame, instants_of(NOW, None), start_of(ID))

    assert decode(payload) == decode(
        encode(ID, data, SessionCookie(options()), created_at=NOW, now=NOW)
    )
    assert read(payload) == (
        *(data, NOW, None),
        instants_of(NOW, None),
    )


def test_what_such_a_record_says_is_the_same_whether_its_frame_is_known_or_not() -> None:
    payload = encoded({"n": 1, "cart": ["tea"]})

    known = read(payload)

    assert known == (
        *({"n": 1, "cart": ["tea"]}, NOW - 60, None),
        instants_of(NOW - 60, None),
    )
    assert decode(payload) == Record(
        {"n": 1, "cart": ["tea"]}, None, {}, NOW - 60, is_in_clear=True
    )


def test_a_login_is_read_in_fewer_steps_as_well() -> None:
    payload = encode(
        *(ID, {"n": 1}, SessionCookie(options())),
        created_at=NOW - 60,
        now=NOW,
        authenticated_at=NOW - 30,
    )

    known = read(payload)

    assert known == ({"n": 1}, NOW - 60, NOW - 30, instants_of(NOW - 60, NOW - 30))


def test_a_cookie_with_an_end_has_no_frame_that_stays_the_same() -> None:
    assert options(max_age=60).frame == options(expires=IN_2030).frame == b""


def test_a_record_from_the_future_is_read_as_a_whole() -> None:
    payload = encoded({"n": 1})

    assert read(payload, NOW - 61) is None


def test_a_login_from_the_future_is_read_as_a_whole() -> None:
    payload = encode(
        *(ID, {"n": 1}, SessionCookie(options())),
        created_at=NOW - 60,
        now=NOW,
        authenticated_at=NOW - 30,
    )

    assert read(payload, NOW - 31) is None


def test_a_record_with_attributes_of_its_own_is_read_as_a_whole() -> None:
    cookie = SessionCookie(options())
    cookie.max_age = 60

    payload = encoded({"n": 1}, cookie)

    assert read(payload) is None
    assert decode(payload) == Record({"n": 1}, 60.0, {}, NOW - 60, is_in_clear=True)


def test_a_record_by_other_options_is_read_as_a_whole() -> None:
    payload = encoded({"n": 1}, SessionCookie(options(samesite="strict")))

    assert read(payload) is None
    assert decode(payload) == Record({"n": 1}, None, {}, NOW - 60, is_in_clear=True)


def test_of_two_cookies_in_a_record_the_last_counts_though_the_first_is_known() -> None:
    payload = encoded({"n": 1}).removesuffix(b"}") + b',"cookie":{"originalMaxAge":60000}}'

    assert read(payload) is None
    assert decode(payload) == Record({"n": 1}, 60.0, {}, NOW - 60, is_in_clear=True)


@pytest.mark.parametrize(
    "more",
    [b'"__aiosess":{"created":1.5}', b'"__aiosess":5', b'"cookie":{}'],
)
def test_a_reserved_key_behind_the_frame_is_not_for_the_fast_way(more: bytes) -> None:
    payload = encoded({"n": 1}).removesuffix(b"}") + b"," + more + b"}"

    assert read(payload) is None


@pytest.mark.parametrize(
    ("standing", "instead"),
    [
        (b'","created":', b'","later":1,"created":'),
        (b',"created":', b',"created":1.5,"created":'),
        (b'},"cookie"', b',"later":[1]},"cookie"'),
        (b'},"cookie"', b',"auth":1.5,"later":1},"cookie"'),
        (b'},"cookie"', b',"auth":},"cookie"'),
        (b'},"cookie"', b',"auth":"now"},"cookie"'),
    ],
)
def test_what_else_is_remembered_is_not_for_the_fast_way(standing: bytes, instead: bytes) -> None:
    payload = encoded({"n": 1})
    assert payload.count(standing) == 1

    assert read(payload.replace(standing, instead)) is None


def test_a_frame_inside_a_value_ends_nothing() -> None:
    data = {"n": {"__aiosess": {"created": 1.5}, "cookie": {"originalMaxAge": None}}, "a": "},"}

    known = read(encoded(data))

    assert known is not None
    assert known[0] == data


def test_a_record_that_breaks_off_after_its_frame_cannot_be_read() -> None:
    payload = encoded({"n": 1}).removesuffix(b"1}")

    assert read(payload) is None
    with pytest.raises(RecordError, match="not JSON"):
        decode(payload)


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["created", "auth", "rev", "own", "renewed_to", "moved_to", "a"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(["cookie", "__aiosess", "a", "b"]), ANYTHING, min_size=1))
def test_whatever_follows_a_known_frame_is_read_as_if_it_were_not_known(
    rest: dict[str, Any],
) -> None:
    payload = encoded({"n": 1}).removesuffix(b'"n":1}') + json.dumps(rest).encode()[1:]

    known = read(payload)

    assert known is None or decode(payload) == Record(
        *(known[0], None, {}, known[1], known[2]), is_in_clear=True
    )


# Whose a session is.

BONDS = [
    Bond("h" * 16, "ann", 1_700_000_000_250),
    Bond("h" * 16, "ann", 1, "Ann's \u2603", "127.0.0.1", "curl", {"sid": "a", "tenant": "b"}),
    Bond("h" * 16, 'a},"handle":"b', 1, None, None, None, {"sid": "},"}),
]


@pytest.mark.parametrize("version", [0, 3])
@pytest.mark.parametrize("bond", BONDS, ids=["plain", "full", "odd"])
def test_a_record_says_whose_it_is(bond: Bond, version: int) -> None:
    unknown = {"version": version} if version else {}
    payload = encode(
        *(ID, {"n": 1}, SessionCookie(options())),
        created_at=NOW,
        now=NOW,
        authenticated_at=NOW,
        unknown=unknown,
        bond=bond,
    )

    assert decoded(payload).bond == bond
    assert decoded(payload).unknown == unknown


@pytest.mark.parametrize("version", [None, 3])
@pytest.mark.parametrize("bond", BONDS[:2], ids=["plain", "full"])
def test_the_fast_way_reads_whose_a_record_is_and_writes_it_so(
    bond: Bond, version: int | None
) -> None:
    migration = Migration(version)
    payload = encode(
        *(ID, {"n": 1}, SessionCookie(options())),
        created_at=NOW,
        now=NOW,
        unknown=migration.beginning,
        bond=bond,
    )
    fast = usual_of(migration, lambda _id: False)

    state = fast(ID, Stored(payload, 1), options(), NOW)

    assert state is not None
    assert (state.data, state.bond, state.kept_bond) == ({"n": 1}, bond, bond)
    again = encode_usual({"n": 1}, options().frame, state.instants, start_of(ID))
    assert decoded(again) == decoded(payload)


def test_the_fast_way_reads_whose_a_record_is_where_nobody_looks_at_it() -> None:
    payload = encode(
        *(ID, {"n": 1}, SessionCookie(options())), created_at=NOW, now=NOW, bond=BONDS[0]
    )

    state = usual_of(Migration())(ID, Stored(payload, 1), options(), NOW)

    assert state is not None
    assert state.bond == BONDS[0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"bound":', b'"later":1,"bound":'),
        (b'"bound":1', b'"bound":"1'),
        (b'"principal":"ann"', b'"principal":"\xff"'),
        (b'"created":', b'"created":"never",'),
    ],
)
def test_the_fast_way_leaves_an_odd_bond_to_the_whole_way(old: bytes, new: bytes) -> None:
    payload = encode(
        *(ID, {"n": 1}, SessionCookie(options())), created_at=NOW, now=NOW, bond=BONDS[0]
    )
    fast = usual_of(Migration(), lambda _id: False)
    assert fast(ID, Stored(payload, 1), options(), NOW) is not None

    assert fast(ID, Stored(payload.replace(old, new), 1), options(), NOW) is None


def test_the_fast_way_leaves_a_session_that_is_to_be_looked_at_to_the_whole_way() -> None:
    payload = encode(
        *(ID, {"n": 1}, SessionCookie(options())), created_at=NOW, now=NOW, bond=BONDS[0]
    )
    asked: list[str] = []

    def is_due(session_id: str) -> bool:
        asked.append(session_id)
        return True

    assert usual_of(Migration(), is_due)(ID, Stored(payload, 1), options(), NOW) is None
    assert asked == [ID]


@pytest.mark.parametrize(
    "meta", [{"handle": 1}, {"handle": "h"}, {"handle": "h", "principal": "ann", "bound": "x"}]
)
def test_a_bond_that_is_none_makes_a_record_nobodys(meta: dict[str, Any]) -> None:
    payload = encode(
        *(ID, {"n": 1}, SessionCookie(options())), created_at=NOW, now=NOW, unknown=meta
    )

    assert decoded(payload).bond is None
