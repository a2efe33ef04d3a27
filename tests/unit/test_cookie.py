"""How the session id travels, and what becomes of everything that looks like it."""

from __future__ import annotations

import logging
import random
import ssl
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import hdrs, web
from aiohttp.test_utils import make_mocked_request
from multidict import CIMultiDict

from aiosess import CookieOptions, OptionsError, SessionCookie
from aiosess.records.decide import Reply
from aiosess.records.state import SessionState
from aiosess.transports.base import SignedId
from aiosess.transports.cookie import (
    CookieTransport,
    clearing_line,
    cookie_line,
    cookie_values,
    is_secure,
    is_under,
)
from aiosess.transports.signing import Signer
from tests.conftest import SECRET

OLD_SECRET = "an old secret of the tests that is long enough to be quiet"
NOW = 1_700_000_000.0


@pytest.fixture
def signer() -> Signer:
    return Signer(SECRET)


def request_with(*cookies: str, **headers: str) -> web.Request:
    pairs = [(hdrs.COOKIE, cookie) for cookie in cookies]
    return make_mocked_request("GET", "/", headers=CIMultiDict([*pairs, *headers.items()]))


def transport_of(signer: Signer, cookie: CookieOptions | None = None) -> CookieTransport:
    return CookieTransport("sid", signer, cookie or CookieOptions(), proxy=None, clock=lambda: NOW)


def read(signer: Signer, request: web.Request) -> SignedId | None:
    return next(iter(transport_of(signer).read(request)), None)


# Signing


VECTORS = [
    ("apple", "s%3Aapple.D8Y%2BpkTAmeR0PobOhY4G97PRW%2Bj7bUnP%2F5m6%2FOn1MCU"),
    ("%", "s%3A%25.kzQ6x52kKVdF35Qh62AWk4ZekS28K5XYCXKa%2FOTZ01g"),
    ("/foo", "s%3A%2Ffoo.paEKBtAHbV5s1IB8B2zPnzAgYmmnRPIqObW4VRYj%2FMQ"),
]


@pytest.mark.parametrize(("session_id", "value"), VECTORS)
def test_an_id_is_signed_as_express_signs_it(session_id: str, value: str) -> None:
    assert Signer("keyboard cat").sign(session_id) == value


@pytest.mark.parametrize(("session_id", "value"), VECTORS)
def test_a_value_that_express_signed_is_accepted(session_id: str, value: str) -> None:
    assert Signer("keyboard cat").unsign(value) == SignedId(session_id, is_current=True)


@pytest.mark.parametrize(
    "session_id",
    [
        "a",
        "a.b.c",
        "with spaces",
        "with\r\nnewlines",
        "with;semicolons=and,commas",
        'with"quotes"',
        "with\x00nul",
        "ä\u20ac\U0001f600",
        "100%",
        "%3A%2B%2F",
        "!~*'()",
        "s:s:",
        "x" * 10_000,
    ],
    ids=ascii,
)
def test_any_id_survives_the_journey(signer: Signer, session_id: str) -> None:
    value = signer.sign(session_id)

    assert read(signer, request_with(f"sid={value}")) == SignedId(session_id, is_current=True)


@pytest.mark.parametrize(
    "session_id", ["with\r\nnewlines", "a;b", 'a"b', "a b", "ä", "a,b", "\x00"]
)
def test_a_signed_id_has_nothing_in_it_that_a_header_cannot_carry(
    signer: Signer, session_id: str
) -> None:
    value = signer.sign(session_id)

    assert value.isascii()
    assert not set(value) & set('\r\n;", \x00')


def test_a_value_that_was_not_percent_encoded_is_accepted(signer: Signer) -> None:
    plain = signer.sign("apple").replace("%3A", ":").replace("%2B", "+").replace("%2F", "/")

    assert signer.unsign(plain) == SignedId("apple", is_current=True)


def test_a_value_whose_escapes_are_in_lower_case_is_accepted() -> None:
    value = VECTORS[0][1].replace("%3A", "%3a").replace("%2B", "%2b").replace("%2F", "%2f")

    assert Signer("keyboard cat").unsign(value) == SignedId("apple", is_current=True)


def test_a_value_that_was_encoded_twice_is_refused(signer: Signer) -> None:
    assert signer.unsign(signer.sign("apple").replace("%", "%25")) is None


# Rotation


def test_the_first_secret_signs() -> None:
    assert Signer([SECRET, OLD_SECRET]).sign("apple") == Signer(SECRET).sign("apple")


def test_a_value_of_an_older_secret_is_accepted_and_known_as_such() -> None:
    value = Signer(OLD_SECRET).sign("apple")

    assert Signer([SECRET, OLD_SECRET]).unsign(value) == SignedId("apple", is_current=False)


def test_a_secret_that_was_taken_out_is_accepted_no_more() -> None:
    assert Signer([SECRET]).unsign(Signer(OLD_SECRET).sign("apple")) is None


@pytest.mark.parametrize("secret", [SECRET, SECRET.encode(), [SECRET], (SECRET.encode(),)])
def test_a_secret_is_text_or_bytes_or_several(secret: Any) -> None:
    assert Signer(secret).sign("apple") == Signer(SECRET).sign("apple")


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ([], "secret must be a str, bytes or a list of them with at least one"),
        ((), "secret must be a str, bytes or a list of them with at least one"),
        (None, "secret must be a str, bytes or a list of them with at least one"),
        ({"a"}, "secret must be a str, bytes or a list of them with at least one"),
        ("", "secret is empty: give at least 32 random bytes"),
        (b"", "secret is empty: give at least 32 random bytes"),
        ([SECRET, ""], "secret is empty: give at least 32 random bytes"),
        (
            "\ud800",
            "secret has half of a character (a lone surrogate): give text or bytes",
        ),
        ([None], "a secret must be str or bytes, not NoneType"),
        ([SECRET, 5], "a secret must be str or bytes, not int"),
    ],
)
def test_what_cannot_be_a_secret_is_refused(secret: Any, message: str) -> None:
    with pytest.raises(OptionsError) as caught:
        Signer(secret)

    assert str(caught.value) == message


@pytest.mark.parametrize("secret", ["keyboard cat", ["keyboard cat", "x"], [SECRET, "short"]])
def test_short_secrets_are_warned_of_once(secret: Any, caplog: pytest.LogCaptureFixture) -> None:
    Signer(secret)

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "fewer than 32 bytes" in record.getMessage()
    assert "keyboard" not in record.getMessage()


def test_long_secrets_are_quiet(caplog: pytest.LogCaptureFixture) -> None:
    Signer([SECRET, "x" * 32])

    assert caplog.records == []


# Bad input


def random_bytes(length: int) -> str:
    return random.Random(length).randbytes(length).decode("utf-8", "surrogateescape")


SIGNATURE = VECTORS[0][1].rpartition(".")[2]


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "s:",
        "s:.",
        "s:apple",
        "s:apple.",
        "apple",
        f"apple.{SIGNATURE}",
        f"s:.{SIGNATURE}",
        f"s:pear.{SIGNATURE}",
        f"s:apple .{SIGNATURE}",
        f"s:apple\n.{SIGNATURE}",
        f"s:apple\x00.{SIGNATURE}",
        f"s%3Aapple.{SIGNATURE[:-1]}",
        f"s%3Aapple.{SIGNATURE}%3D",
        f"s%3Aapple.{SIGNATURE}A",
        f"s%3Aapple.{SIGNATURE.lower()}",
        f"S%3Aapple.{SIGNATURE}",
        f"j%3Aapple.{SIGNATURE}",
        "s:apple." + "ä" * 43,
        "s:apple." + "\udcff" * 43,
        "s:\udcff." + "A" * 43,
        "s:ä." + "A" * 43,
        "s%3A%ff." + "A" * 43,
        "%",
        "%%%",
        "%zz",
        "%00",
        "\x00" * 100,
        *(random_bytes(length) for length in range(1, 100, 7)),
        pytest.param("A" * 2**20, id="1 MB"),
        pytest.param("%ff" * 2**18, id="1 MB of escapes"),
        pytest.param("." * 2**20, id="1 MB of points"),
        pytest.param("s:" + "A" * 2**20 + "." + "A" * 43, id="1 MB with a signature"),
    ],
    ids=ascii,
)
def test_a_value_without_a_signature_of_ours_is_nothing(value: str) -> None:
    assert Signer("keyboard cat").unsign(value) is None


def test_a_signature_for_no_id_at_all_is_refused(signer: Signer) -> None:
    assert signer.unsign(signer.sign("")) is None


# All cookies of the name


def test_the_first_cookie_whose_signature_holds_is_used(signer: Signer) -> None:
    ours, other = signer.sign("ours"), signer.sign("other")
    request = request_with(f"sid=planted; sid={ours}; sid={other}")

    assert read(signer, request) == SignedId("ours", is_current=True)


def test_a_cookie_in_a_second_header_is_found(signer: Signer) -> None:
    request = request_with("sid=planted", "a=b", f"c=d; sid={signer.sign('ours')}")

    assert read(signer, request) == SignedId("ours", is_current=True)


def test_a_thousand_planted_cookies_do_not_push_ours_aside(signer: Signer) -> None:
    planted = "; ".join(f"sid=s%3A{n}.{'A' * 43}" for n in range(1000))
    request = request_with(f"{planted}; sid={signer.sign('ours')}")

    assert read(signer, request) == SignedId("ours", is_current=True)


def test_a_thousand_planted_cookies_are_nothing(signer: Signer) -> None:
    planted = "; ".join(f"sid=s%3A{n}.{'A' * 43}" for n in range(1000))

    assert read(signer, request_with(planted)) is None


def test_a_signature_that_held_is_computed_once(signer: Signer) -> None:
    request = request_with(f"sid={signer.sign('ann')}")
    seen = read(signer, request)

    again = read(signer, request)

    assert again == SignedId("ann", is_current=True)
    assert again is seen


def test_a_signature_that_does_not_hold_is_not_remembered(signer: Signer) -> None:
    for number in range(10):
        read(signer, request_with(f"sid=s%3Aann.{number:043}"))

    assert signer.verified == {}


def test_another_spelling_of_a_cookie_is_accepted_and_not_remembered(signer: Signer) -> None:
    value = signer.sign("ann").replace("ann", "%61nn")

    seen = read(signer, request_with(f"sid={value}"))

    assert seen == SignedId("ann", is_current=True)
    assert signer.verified == {}


def test_signatures_are_remembered_in_bounded_memory(
    signer: Signer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiosess.transports.signing._MOST_VERIFIED", 10)

    seen = [read(signer, request_with(f"sid={signer.sign(str(n))}")) for n in range(95)]

    assert [signed.session_id for signed in seen if signed] == [str(n) for n in range(95)]
    assert 0 < len(signer.verified) <= 10


@pytest.mark.parametrize(
    ("header", "values"),
    [
        ("", []),
        ("sid=", [""]),
        ("sid", []),
        ("sid=a", ["a"]),
        ('sid="a"', ["a"]),
        ("a=b;sid=c;d=e", ["c"]),
        ("a=b;   sid=c  ;d=e", ["c"]),
        ("sid=a; sid=b", ["a", "b"]),
        ("xsid=a; sid2=b; SID=c", []),
        ("sid=a=b", ["a=b"]),
        ("other=sid=a", []),
        (";;; sid=a;;", ["a"]),
        ("sid=sid=a; sid=b", ["sid=a", "b"]),
        ("xsid=sid=a; sid=b", ["b"]),
        ("a; sid=b", ["b"]),
        ("a sid=b", []),
        ("$Version=1; sid=a; $Path=/", ["a"]),
    ],
    ids=ascii,
)
def test_the_values_of_a_name_are_read_in_order(header: str, values: list[str]) -> None:
    assert list(cookie_values(request_with(header), "sid")) == values


def test_without_a_cookie_header_there_are_no_values() -> None:
    assert list(cookie_values(request_with(), "sid")) == []


class Counted(str):
    """A header that counts the characters at which somebody looks, and so do its parts."""

    __slots__ = ()
    looked = 0

    def _count(self, part: str) -> Counted:
        Counted.looked += len(part)
        return Counted(part)

    def __getitem__(self, key: Any) -> Counted:
        return self._count(super().__getitem__(key))

    def _span(self, at: int, start: int | None, end: int | None) -> int:
        Counted.looked += (at if at >= 0 else len(self) if end is None else end) - (start or 0)
        return at

    def find(self, text: str, start: Any = None, end: Any = None) -> int:
        return self._span(super().find(text, start, end), start, end)

    def rfind(self, text: str, start: Any = None, end: Any = None) -> int:
        Counted.looked += (len(self) if end is None else end) - (start or 0)
        return super().rfind(text, start, end)

    def partition(self, text: str) -> Any:
        return tuple(self._count(part) for part in super().partition(text))

    def split(self, *args: Any, **kwargs: Any) -> Any:
        return [self._count(part) for part in super().split(*args, **kwargs)]

    def strip(self, chars: str | None = None) -> Counted:
        return self._count(super().strip(chars))

    def lstrip(self, chars: str | None = None) -> Counted:
        return self._count(super().lstrip(chars))

    def rstrip(self, chars: str | None = None) -> Counted:
        return self._count(super().rstrip(chars))


def looked_at(*headers: str) -> int:
    """Return at how many characters somebody looks who reads all cookies."""
    sent = CIMultiDict([(hdrs.COOKIE, Counted(header)) for header in headers])
    request: Any = SimpleNamespace(headers=sent)
    Counted.looked = 0
    [*cookie_values(request, "sid")]
    return Counted.looked


@pytest.mark.parametrize(
    "planted", ["sid=a; ", "sid=", "xsid=a; ", "a=sid=b; ", ";", " sid= ;", "a", "sid=a"]
)
def test_the_work_for_a_header_grows_as_its_length(planted: str) -> None:
    header = planted * (8_000 // len(planted))

    work = looked_at(header * 4)

    assert work <= 6 * len(header * 4)
    assert work <= 4.1 * looked_at(header) + 100


@pytest.mark.parametrize("size", [1_000, 8_000, 200_000])
def test_no_more_than_64_kb_of_cookie_headers_are_looked_at(size: int) -> None:
    header = "sid=a; " * (size // 7)

    assert 0 < looked_at(*[header] * 150) <= 6 * 65_536


def test_a_cookie_behind_many_planted_ones_is_found() -> None:
    planted = "sid=planted; " * 4_900

    *_, last = cookie_values(request_with(planted + "sid=ours"), "sid")

    assert last == "ours"


# Is the connection secure?


class Transport:
    """A connection with TLS or without."""

    def __init__(self, *, tls: bool) -> None:
        self._extra = {"sslcontext": object()} if tls else {}

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self._extra.get(name, default)


def request_over(*, tls: bool, forwarded: str | None = None) -> web.Request:
    headers = {} if forwarded is None else {"X-Forwarded-Proto": forwarded}
    return make_mocked_request(
        "GET",
        "/",
        headers=headers,
        transport=Transport(tls=tls),
        sslcontext=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if tls else None,
    )


@pytest.mark.parametrize(
    ("proxy", "tls", "forwarded", "expected"),
    [
        (None, True, None, True),
        (None, False, None, False),
        (None, False, "https", False),
        (None, True, "http", True),
        (False, True, None, True),
        (False, False, None, False),
        (False, False, "https", False),
        (True, True, None, True),
        (True, True, "http", True),
        (True, False, None, False),
        (True, False, "https", True),
        (True, False, "HTTPS", True),
        (True, False, " https , http", True),
        (True, False, "http,https", False),
        (True, False, "", False),
        (True, False, "httpsx", False),
        (True, False, "wss", True),
        (True, False, "WSS, http", True),
        (True, False, "ws", False),
    ],
)
def test_a_connection_is_secure_as_proxy_says(
    *, proxy: bool | None, tls: bool, forwarded: str | None, expected: bool
) -> None:
    request = request_over(tls=tls, forwarded=forwarded)

    assert is_secure(request, proxy=proxy) is expected


@pytest.mark.parametrize(("proxy", "expected"), [(None, True), (False, False), (True, False)])
def test_a_scheme_that_a_middleware_set_counts_only_without_proxy(
    *, proxy: bool | None, expected: bool
) -> None:
    request = request_over(tls=False).clone(scheme="https")

    assert is_secure(request, proxy=proxy) is expected


# Paths


@pytest.mark.parametrize(
    ("path", "cookie_path", "expected"),
    [
        ("/", "/", True),
        ("/anything", "/", True),
        ("*", "/", True),
        ("/foo/bar", "/foo/bar", True),
        ("/foo/bar/", "/foo/bar", True),
        ("/foo/bar/baz", "/foo/bar", True),
        ("/foo/barbaz", "/foo/bar", False),
        ("/foo", "/foo/bar", False),
        ("/", "/foo", False),
        ("/foo/", "/foo/", True),
        ("/foo/bar", "/foo/", True),
        ("/foo", "/foo/", False),
        ("/FOO/bar", "/foo", False),
        ("/foo%2Fbar", "/foo", False),
    ],
)
def test_a_path_is_under_another_by_whole_segments(
    *, path: str, cookie_path: str, expected: bool
) -> None:
    assert is_under(path, cookie_path) is expected


# Set-Cookie


@pytest.mark.parametrize(
    ("options", "attributes"),
    [
        ({}, "; Path=/; HttpOnly; SameSite=Lax"),
        ({"httponly": False, "samesite": False}, "; Path=/"),
        ({"secure": True, "samesite": "none"}, "; Path=/; HttpOnly; Secure; SameSite=None"),
        ({"path": "/shop", "samesite": True}, "; Path=/shop; HttpOnly; SameSite=Strict"),
        ({"domain": "example.org"}, "; Path=/; Domain=example.org; HttpOnly; SameSite=Lax"),
        (
            {"secure": True, "partitioned": True, "priority": "high"},
            "; Path=/; HttpOnly; Secure; Partitioned; Priority=High; SameSite=Lax",
        ),
    ],
)
class TestAttributes:
    def test_of_a_cookie_that_is_set(self, options: dict[str, Any], attributes: str) -> None:
        cookie = SessionCookie(CookieOptions(**{"secure": False, **options}))

        line = cookie_line("sid", "value", cookie, now=NOW)

        assert line == f"sid=value{attributes}"

    def test_of_a_cookie_that_is_cleared(self, options: dict[str, Any], attributes: str) -> None:
        cookie = SessionCookie(CookieOptions(**{"secure": False, **options}))

        line = clearing_line("sid", cookie)

        assert line == f"sid=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT{attributes}"


@pytest.mark.parametrize(
    ("options", "lifetime"),
    [
        ({"max_age": 60}, "Max-Age=60; Expires=Tue, 14 Nov 2023 22:14:20 GMT"),
        ({"max_age": 0.5}, "Max-Age=1; Expires=Tue, 14 Nov 2023 22:13:20 GMT"),
        (
            {"expires": datetime(2024, 2, 29, 1, 2, 3, tzinfo=UTC)},
            "Max-Age=9168523; Expires=Thu, 29 Feb 2024 01:02:03 GMT",
        ),
        (
            {"expires": datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)},
            "Max-Age=0; Expires=Sun, 09 Sep 2001 01:46:40 GMT",
        ),
    ],
)
def test_a_cookie_with_an_end_says_when(options: dict[str, Any], lifetime: str) -> None:
    line = cookie_line("sid", "v", SessionCookie(CookieOptions(**options)), now=NOW)

    assert line.startswith(f"sid=v; {lifetime}; Path=/")


def state_under(session_id: str) -> SessionState:
    return SessionState(session_id, SessionCookie(CookieOptions(secure=False)), NOW)


@pytest.mark.parametrize("reply", [Reply.SEND, Reply.CLEAR])
class TestOtherHeaders:
    def test_caches_are_told_to_leave_the_cookie_out(self, signer: Signer, reply: Reply) -> None:
        response = web.Response()

        transport_of(signer).tell(response, reply, state_under("ann"), ())

        assert response.headers[hdrs.CACHE_CONTROL] == 'private, no-cache="Set-Cookie"'

    def test_what_the_handler_told_caches_stays(self, signer: Signer, reply: Reply) -> None:
        response = web.Response(headers={hdrs.CACHE_CONTROL: "no-store"})

        transport_of(signer).tell(response, reply, state_under("ann"), ())

        assert response.headers.getall(hdrs.CACHE_CONTROL) == ["no-store"]

    def test_the_handlers_own_cookies_stay(self, signer: Signer, reply: Reply) -> None:
        response = web.Response(headers=[(hdrs.SET_COOKIE, "a=b"), (hdrs.SET_COOKIE, "c=d")])

        transport_of(signer).tell(response, reply, state_under("ann"), ())

        assert response.headers.getall(hdrs.SET_COOKIE)[:2] == ["a=b", "c=d"]
        assert len(response.headers.getall(hdrs.SET_COOKIE)) == 3


def test_what_is_told_last_takes_the_place_of_what_was_told_before(signer: Signer) -> None:
    response = web.Response(headers=[(hdrs.SET_COOKIE, "a=b")])
    transport = transport_of(signer)
    told = transport.tell(response, Reply.SEND, state_under("ann"), ())

    transport.tell(response, Reply.SEND, state_under("bob"), told)

    first, ours = response.headers.getall(hdrs.SET_COOKIE)
    assert first == "a=b"
    assert ours.startswith(f"sid={signer.sign('bob')};")


def test_a_cookie_that_was_carried_over_to_another_response_is_not_sent_twice(
    signer: Signer,
) -> None:
    transport, first = transport_of(signer), web.Response()
    told = transport.tell(first, Reply.SEND, state_under("ann"), ())
    other = web.Response(headers=first.headers)

    transport.tell(other, Reply.SEND, state_under("ann"), told)

    assert len(other.headers.getall(hdrs.SET_COOKIE)) == 1


def test_nothing_is_written_where_there_is_nothing_to_tell(signer: Signer) -> None:
    response = web.Response()

    transport_of(signer).tell(response, Reply.LEAVE, state_under("ann"), ())

    assert hdrs.SET_COOKIE not in response.headers
    assert hdrs.CACHE_CONTROL not in response.headers
