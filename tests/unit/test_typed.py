"""Values with a type: what is converted, what is noticed, what is refused."""

from __future__ import annotations

import base64
import dataclasses
import enum
import json
import subprocess
import sys
from collections import deque
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal, TypedDict
from uuid import UUID

import attrs
import msgspec
import pytest

from aiosess import (
    CookieOptions,
    InvalidValue,
    OptionsError,
    Session,
    SessionCookie,
    SessionGone,
    SessionKey,
    UnserializableValue,
)
from aiosess.records.format import Record
from aiosess.records.merge import MISSING, freeze
from aiosess.records.state import Past, SessionState

COOKIE = CookieOptions(secure=False)


class Application:
    """Stands where a session asks for what is done to it at once."""

    def __init__(self) -> None:
        self.is_told_late = False
        self.heard: list[str] = []

    def note_invalid(self, error: InvalidValue) -> None:
        self.heard.append(f"{error.key}: {error.reason}")

    def declare(self, key: SessionKey[Any]) -> None:
        pass

    def note_late(self) -> None:
        self.is_told_late = True


def session_of(**data: Any) -> Session:
    state = SessionState("id", SessionCookie(COOKIE), 1000.5, data=data, version=1)
    io: Any = Application()
    return Session(state, io)


def changes(session: Session) -> dict[str, Any]:
    """Return what would be written, by key, as JSON has it."""
    return {
        key: now if now is MISSING else json.loads(freeze([now]))[0]  # type: ignore[arg-type]
        for key, (_, now) in session._state.changes().items()
    }


def rebased(session: Session, **theirs: Any) -> dict[str, Any]:
    """Let others have written *theirs*, merge, and return the data."""
    session._state.rebase(Record(theirs, None, {}, 1000.5), 2, "mine")
    return session._state.data


class Role(enum.Enum):
    ADMIN = "admin"
    GUEST = "guest"


@dataclasses.dataclass
class User:
    name: str
    tags: set[str] = dataclasses.field(default_factory=set)


@dataclasses.dataclass
class Address:
    street: str
    town: str


class Basket(msgspec.Struct):
    count: int
    owner: Address | None = None


@attrs.define
class Profile:
    name: str
    marks: list[int] = attrs.field(factory=list)


class Point(TypedDict):
    x: int
    y: int


class Place(TypedDict):
    name: str
    since: date


@dataclasses.dataclass(frozen=True)
class Fixed:
    count: int


class Node(msgspec.Struct):
    name: str
    children: list[Node] = []


class Money:
    """A class that msgspec does not know."""

    def __init__(self, cents: int) -> None:
        self.cents = cents

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and other.cents == self.cents

    def __hash__(self) -> int:
        return self.cents


USER = SessionKey("user", User)
CART = SessionKey("cart", dict[str, int], default_factory=dict)
TAGS = SessionKey("tags", set[str], default_factory=set)
ADDRESS = SessionKey("address", Address)
COUNT = SessionKey("count", int, default=0)
MONEY = SessionKey(
    "money", Money, enc_hook=lambda money: money.cents, dec_hook=lambda kind, cents: kind(cents)
)


# What is converted


KINDS: dict[str, tuple[Any, Any, Any]] = {
    "str": (str, "ann", "ann"),
    "int": (int, 3, 3),
    "float": (float, 1.5, 1.5),
    "bool": (bool, True, True),
    "None": (type(None), None, None),
    "datetime": (datetime, datetime(2026, 1, 2, tzinfo=UTC), "2026-01-02T00:00:00Z"),
    "date": (date, date(2026, 1, 2), "2026-01-02"),
    "UUID": (UUID, UUID(int=7), "00000000-0000-0000-0000-000000000007"),
    "Decimal": (Decimal, Decimal("1.10"), "1.10"),
    "Enum": (Role, Role.ADMIN, "admin"),
    "Literal": (Literal["a", "b"], "a", "a"),
    "set": (set[str], {"b", "a"}, ["a", "b"]),
    "frozenset": (frozenset[int], frozenset({10, 9}), [9, 10]),
    "tuple": (tuple[int, str], (1, "a"), [1, "a"]),
    "tuple of any length": (tuple[date, ...], (date(2026, 1, 2),), ["2026-01-02"]),
    "bytes": (bytes, b"abc", base64.b64encode(b"abc").decode()),
    "bytearray": (bytearray, bytearray(b"abc"), base64.b64encode(b"abc").decode()),
    "list of sets": (list[set[int]], [{2, 1}], [[1, 2]]),
    "dict by dates": (dict[date, int], {date(2026, 1, 2): 1}, {"2026-01-02": 1}),
    "dict of floats": (dict[str, float], {"a": 1.0}, {"a": 1.0}),
    "dataclass": (User, User("ann", {"z", "a"}), {"name": "ann", "tags": ["a", "z"]}),
    "frozen dataclass": (Fixed, Fixed(1), {"count": 1}),
    "Struct": (Basket, Basket(1), {"count": 1, "owner": None}),
    "attrs": (Profile, Profile("ann", [1]), {"name": "ann", "marks": [1]}),
    "TypedDict": (Point, {"x": 1, "y": 2}, {"x": 1, "y": 2}),
    "TypedDict of dates": (
        Place,
        {"name": "a", "since": date(2026, 1, 2)},
        {"name": "a", "since": "2026-01-02"},
    ),
    "optional": (User | None, None, None),
    "recursive": (
        Node,
        Node("a", [Node("b")]),
        {"name": "a", "children": [{"name": "b", "children": []}]},
    ),
    "any JSON": (Any, {"a": [1]}, {"a": [1]}),
    "annotated": (Annotated[int, msgspec.Meta(ge=1)], 1, 1),
}
each_kind = pytest.mark.parametrize(("kind", "value", "plain"), KINDS.values(), ids=KINDS)


@each_kind
def test_a_value_is_kept_as_json(kind: Any, value: Any, plain: Any) -> None:
    session = session_of()

    session[SessionKey[Any]("key", kind)] = value

    assert changes(session) == {"key": plain}


@each_kind
def test_a_value_comes_back_as_it_was(kind: Any, value: Any, plain: Any) -> None:
    session = session_of(key=plain)

    found = session[SessionKey[Any]("key", kind)]

    assert (type(found), found) == (type(value), value)


@each_kind
def test_a_value_that_was_only_read_is_not_written(kind: Any, value: Any, plain: Any) -> None:
    session = session_of(key=plain)

    assert session[SessionKey[Any]("key", kind)] == value

    assert not session._state.is_modified
    assert changes(session) == {}


def test_a_set_of_what_cannot_be_compared_is_written_in_one_order() -> None:
    key = SessionKey[Any]("key", set[Any])

    assert key.to_builtins({"a", None, 1}) == key.to_builtins({1, None, "a"}) == ["a", 1, None]


def test_a_set_is_the_same_bytes_in_every_process() -> None:
    code = (
        "from aiosess import SessionKey\n"
        "print(SessionKey('key', set[str]).to_builtins(set('abcdefgh')))"
    )

    written = {
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2", "3")
    }

    assert written == {f"{list('abcdefgh')}\n".encode()}


def test_a_type_that_msgspec_does_not_know_goes_by_hooks() -> None:
    session = session_of(money=5)

    session[MONEY].cents = 7

    assert changes(session) == {"money": 7}
    assert session[MONEY] == Money(7)


# What is noticed


def test_a_change_inside_a_dataclass_is_noticed() -> None:
    session = session_of(user={"name": "ann", "tags": []})

    session[USER].name = "bob"
    session[USER].tags.add("new")

    assert changes(session) == {"user": {"name": "bob", "tags": ["new"]}}


def test_a_change_inside_a_set_is_noticed() -> None:
    session = session_of(tags=["b"])

    session[TAGS].add("a")

    assert changes(session) == {"tags": ["a", "b"]}


def test_a_change_inside_what_was_set_is_noticed() -> None:
    session = session_of()
    user = User("ann")

    session[USER] = user
    user.name = "bob"

    assert changes(session) == {"user": {"name": "bob", "tags": []}}
    assert session[USER] is user


def test_a_change_after_it_was_kept_is_noticed() -> None:
    session = session_of(money=5)
    money = session[MONEY]
    money.cents = 6
    session._state.saved(2, session._state.snapshot())

    money.cents = 7

    assert changes(session) == {"money": 7}


def test_a_change_that_was_taken_back_is_none() -> None:
    session = session_of(tags=["a"])

    session[TAGS].add("b")
    session[TAGS].discard("b")

    assert not session._state.is_modified


def test_whoever_asks_again_gets_the_same_object() -> None:
    session = session_of(user={"name": "ann", "tags": []})

    assert session[USER] is session[USER]


def test_a_plain_value_is_the_same_under_its_key_and_its_name() -> None:
    session = session_of(cart={"apple": 1})

    assert session[CART] is session["cart"]


def test_a_change_inside_is_seen_under_the_name() -> None:
    session = session_of(user={"name": "ann", "tags": []})

    session[USER].name = "bob"

    assert session["user"] == {"name": "bob", "tags": []}
    assert dict(session) == {"user": {"name": "bob", "tags": []}}


def test_a_change_by_the_name_is_seen_by_the_key() -> None:
    session = session_of(user={"name": "ann", "tags": []})
    assert session[USER].name == "ann"

    session["user"]["name"] = "bob"

    assert session[USER].name == "bob"


def test_whoever_holds_the_container_goes_on_with_it_after_a_change_inside_the_value() -> None:
    session = session_of(user={"name": "ann", "tags": []})
    held = session["user"]

    session[USER].name = "bob"

    assert session["user"] is held


def test_a_value_that_is_set_by_its_name_takes_the_place_of_what_was_changed_inside() -> None:
    session = session_of(user={"name": "ann", "tags": []})
    session[USER].name = "bob"

    session["user"] = {"name": "eve", "tags": []}

    assert session[USER].name == "eve"


def test_a_change_inside_the_value_and_by_the_name_is_refused() -> None:
    session = session_of(user={"name": "ann", "tags": []})
    user, plain = session[USER], session["user"]

    user.name, plain["name"] = "bob", "eve"

    with pytest.raises(UnserializableValue, match=r"session\['user'\] was changed inside the"):
        session._state.changes()


def test_a_late_change_inside_is_told() -> None:
    session = session_of(user={"name": "ann", "tags": []})
    session._state.past = Past.CONCLUDED

    session[USER].name = "bob"

    io: Any = session._io
    assert io.is_told_late


def test_a_rollback_forgets_what_was_changed_inside() -> None:
    session = session_of(user={"name": "ann", "tags": []})
    session[USER].name = "bob"

    session.rollback()

    assert session[USER].name == "ann"


def test_only_a_value_that_can_be_changed_inside_leaves_the_fast_lane() -> None:
    session = session_of(count=1, user={"name": "ann", "tags": []})
    session._state.only_data = True

    session[COUNT] += 1
    by_scalar = session._state.only_data
    assert session[USER].name == "ann"

    assert (by_scalar, session._state.only_data) == (True, False)


# Defaults


def test_without_a_value_there_is_the_default() -> None:
    session = session_of()

    assert (session[COUNT], session[CART], session[TAGS]) == (0, {}, set())


def test_a_default_that_was_only_read_is_not_kept() -> None:
    session = session_of()

    assert session[CART] == {}

    assert not session._state.is_modified
    assert CART not in session
    assert list(session) == []


@pytest.mark.parametrize("key", [CART, SessionKey("cart", dict[str, float], default_factory=dict)])
def test_a_default_that_was_changed_is_kept(key: SessionKey[dict[str, float]]) -> None:
    session = session_of()

    session[key]["apple"] = 1

    assert changes(session) == {"cart": {"apple": 1}}
    assert key in session
    assert session["cart"] == {"apple": 1}


def test_without_a_value_and_a_default_it_is_a_key_error_that_says_what_to_do() -> None:
    with pytest.raises(KeyError) as raised:
        session_of()[USER]

    assert raised.value.args == ("user",)
    assert str(raised.value) == (
        "'user' has no value in this session: ask by session.get(key), which gives None then, put "
        "it in at the login, or give the SessionKey a default"
    )


def test_get_leaves_the_default_of_the_key_alone() -> None:
    session = session_of()

    assert (session.get(COUNT), session.get(COUNT, 5), session.get(CART)) == (None, 5, None)


def test_get_gives_what_is_there() -> None:
    session = session_of(count=3, tags=["a"])

    assert (session.get(COUNT), session.get(TAGS)) == (3, {"a"})


def test_pop_removes_and_converts() -> None:
    session = session_of(tags=["a"])

    popped = session.pop(TAGS)

    assert (popped, changes(session)) == ({"a"}, {"tags": MISSING})


def test_pop_gives_its_own_default_where_there_is_nothing() -> None:
    assert session_of().pop(COUNT, 5) == 5


def test_pop_without_a_default_is_a_key_error_also_where_the_key_has_one() -> None:
    with pytest.raises(KeyError, match=r"'count' has no value .*: session\.pop\(key, None\) gives"):
        session_of().pop(COUNT)


def test_setdefault_puts_in_what_is_missing_and_goes_on_with_it() -> None:
    session = session_of()

    session.setdefault(TAGS, {"a"}).add("b")

    assert changes(session) == {"tags": ["a", "b"]}


def test_setdefault_leaves_what_is_there() -> None:
    session = session_of(count=3)

    assert session.setdefault(COUNT, 5) == 3


def test_del_removes_a_value_and_forgets_what_was_changed_inside() -> None:
    session = session_of(user={"name": "ann", "tags": []})
    session[USER].name = "bob"

    del session[USER]

    assert changes(session) == {"user": MISSING}
    assert USER not in session


def test_del_of_what_is_not_there_is_a_key_error() -> None:
    with pytest.raises(
        KeyError, match=r"'user' has no value .*: session\.pop\(key, None\) removes"
    ):
        del session_of()[USER]


def test_clear_removes_typed_values_too() -> None:
    session = session_of(user={"name": "ann", "tags": []})
    session[USER].name = "bob"

    session.clear()

    assert changes(session) == {"user": MISSING}


def test_update_takes_keys() -> None:
    session = session_of()

    session.update({"a": 1})
    session.update([(COUNT, 2)])  # type: ignore[list-item]

    assert changes(session) == {"a": 1, "count": 2}


def test_a_default_of_a_session_that_was_destroyed_is_no_place_to_keep_anything() -> None:
    session = session_of()
    session._state.past = Past.DESTROYED

    with pytest.raises(SessionGone):
        session[CART]["apple"] = 1


# What does not convert


def test_a_value_that_does_not_convert_is_an_error_that_names_key_and_reason() -> None:
    with pytest.raises(InvalidValue, match=r"session\['user'\] is kept, and is no User") as caught:
        session_of(user={"tags": []})[USER]

    assert (caught.value.key, caught.value.reason) == (
        "user",
        "Object missing required field `name`",
    )


def test_a_value_that_does_not_convert_is_the_default_where_the_key_says_so() -> None:
    key = SessionKey("count", int, default=7, on_invalid="default")
    session = session_of(count="many")

    assert (session[key], session.get(key), key in session) == (7, 7, True)
    assert not session._state.is_modified


def test_that_the_default_stands_for_what_does_not_convert_is_told() -> None:
    session = session_of(count="many")

    session[SessionKey("count", int, default=7, on_invalid="default")]

    io: Any = session._io
    assert io.heard == ["count: Expected `int`, got `str`"]


def test_a_reason_shows_no_value_of_an_enum() -> None:
    with pytest.raises(InvalidValue) as caught:
        session_of(role="secret")[SessionKey("role", Role)]

    assert caught.value.reason == "Invalid enum value"


def test_a_default_in_the_place_of_what_does_not_convert_is_kept_once_it_is_changed() -> None:
    key = SessionKey("cart", dict[str, int], default_factory=dict, on_invalid="default")
    session = session_of(cart="many")

    session[key]["apple"] = 1

    assert changes(session) == {"cart": {"apple": 1}}


def test_a_value_of_another_type_is_refused_where_it_is_set() -> None:
    session: Any = session_of()

    with pytest.raises(UnserializableValue, match=r"session\['count'\] cannot be kept as int"):
        session[COUNT] = "many"

    assert changes(session) == {}


@pytest.mark.parametrize("key", [CART, SessionKey("cart", dict[str, float])])
def test_a_value_that_could_not_be_read_again_is_not_written(key: SessionKey[Any]) -> None:
    session = session_of(cart={})

    session[key]["apple"] = "many"

    with pytest.raises(UnserializableValue, match=r"session\['cart'\] cannot be kept as dict"):
        session._state.changes()


def test_what_cannot_be_kept_can_be_taken_back() -> None:
    session = session_of(cart={})
    session[CART]["apple"] = "many"  # type: ignore[assignment]

    del session[CART]

    assert changes(session) == {"cart": MISSING}


def test_a_reason_of_the_application_s_own_is_told() -> None:
    @dataclasses.dataclass
    class Age:
        years: int

        def __post_init__(self) -> None:
            if self.years < 0:
                raise ValueError("nobody is that young")

    with pytest.raises(InvalidValue, match="nobody is that young"):
        session_of(age={"years": -1})[SessionKey("age", Age)]


def test_what_json_does_not_have_is_refused_inside_a_value_as_well() -> None:
    session = session_of(price={"apple": 1.0})

    session[SessionKey("price", dict[str, float])]["apple"] = float("nan")

    with pytest.raises(UnserializableValue, match=r"session\['price'\]\['apple'\] is nan"):
        session._state.changes()


# Keys that cannot be


MISTAKES: dict[str, tuple[Any, str]] = {
    "no name": (lambda: SessionKey("", str), "its name must be a str that is not empty"),
    "a name of the record": (lambda: SessionKey("cookie", str), "belongs to the record"),
    "no type": (lambda: SessionKey("a", "str"), "'str'.*give a type such as str"),
    "a union that JSON cannot tell": (lambda: SessionKey("a", User | Address), "more than one"),
    "a class that msgspec does not know": (
        lambda: SessionKey("a", deque),
        "knows no deque: give enc_hook=... and dec_hook=...",
    ),
    "such a class inside": (lambda: SessionKey("a", list[Money]), "knows no Money"),
    "a default of another type": (
        lambda: SessionKey("a", int, default="many"),
        "the default 'many' does not convert",
    ),
    "a default that all would share": (
        lambda: SessionKey("a", dict[str, int], default={}),
        r"default=\{\}.*give default_factory",
    ),
    "two defaults": (
        lambda: SessionKey("a", int, default=1, default_factory=int),
        "default or default_factory, not both",
    ),
    "a factory that is none": (
        lambda: SessionKey("a", int, default_factory=3),  # type: ignore[call-overload]
        "default_factory=3 is not callable",
    ),
    "a default that is asked for and missing": (
        lambda: SessionKey("a", int, on_invalid="default"),
        "on_invalid='default' takes default=",
    ),
    "another word for it": (
        lambda: SessionKey("a", int, on_invalid="none"),  # type: ignore[call-overload]
        "on_invalid='none' must be 'error' or 'default'",
    ),
    "nothing to merge": (
        lambda: SessionKey("a", set[int], merged=True),
        "merged=True has no effect on a type without fields",
    ),
}


@pytest.mark.parametrize(("make", "words"), MISTAKES.values(), ids=MISTAKES)
def test_a_key_that_makes_no_sense_says_what_to_do(make: Any, words: str) -> None:
    with pytest.raises(OptionsError, match=words):
        make()


def test_a_key_in_plain_data_says_that_its_name_is_meant() -> None:
    with pytest.raises(KeyError, match=r"in plain data, and as JSON, write key.name or 'user'"):
        dict(session_of(user={"name": "ann"}))[USER]  # type: ignore[index]


def test_a_key_as_a_value_says_that_its_name_is_meant() -> None:
    session = session_of()
    session["which"] = USER

    with pytest.raises(UnserializableValue, match=r"SessionKey.*store value\.name"):
        session._state.changes()


def test_a_key_inside_a_dict_says_that_its_name_is_meant() -> None:
    session = session_of()
    session["which"] = {USER: 1}

    with pytest.raises(UnserializableValue, match="use 'user'"):
        session._state.changes()


# Two requests at once


def test_additions_to_a_set_are_both_kept_and_removals_too() -> None:
    session = session_of(tags=["a", "b"])

    session[TAGS].add("mine")
    session[TAGS].remove("a")

    assert rebased(session, tags=["a", "b", "theirs"])["tags"] == ["b", "mine", "theirs"]


def test_a_set_that_somebody_holds_has_what_others_added() -> None:
    session = session_of(tags=[])
    held = session[TAGS]
    held.add("mine")

    rebased(session, tags=["theirs"])

    assert held == {"mine", "theirs"}
    assert session[TAGS] is held


def test_a_change_after_the_merge_is_still_noticed() -> None:
    session = session_of(tags=[])
    held = session[TAGS]
    held.add("mine")
    rebased(session, tags=["theirs"])

    held.add("again")

    assert changes(session) == {"tags": ["again", "mine", "theirs"]}


def test_a_set_inside_a_dict_is_merged_by_membership() -> None:
    key = SessionKey("seen", dict[str, set[int]])
    session = session_of(seen={"ann": [1], "bob": [1]})

    session[key]["ann"].add(2)

    merged = rebased(session, seen={"ann": [1, 3], "bob": [1, 3]})
    assert merged["seen"] == {"ann": [1, 2, 3], "bob": [1, 3]}


def test_the_parts_of_a_dataclass_belong_together() -> None:
    session = session_of(address={"street": "Elm 1", "town": "Ulm"})

    session[ADDRESS].street = "Oak 2"

    merged = rebased(session, address={"street": "Elm 1", "town": "Bonn"})
    assert merged["address"] == {"street": "Oak 2", "town": "Ulm"}


def test_the_parts_of_a_dataclass_are_merged_where_the_key_says_so() -> None:
    session = session_of(address={"street": "Elm 1", "town": "Ulm"})

    session[SessionKey("address", Address, merged=True)].street = "Oak 2"

    merged = rebased(session, address={"street": "Elm 1", "town": "Bonn"})
    assert merged["address"] == {"street": "Oak 2", "town": "Bonn"}


ONE_VALUE: dict[str, tuple[Any, Any, Any, Any]] = {
    "Struct": (
        Basket,
        {"count": 1, "owner": None},
        {"count": 2, "owner": None},
        {"count": 1, "owner": {"street": "a", "town": "b"}},
    ),
    "attrs": (
        Profile,
        {"name": "a", "marks": []},
        {"name": "b", "marks": []},
        {"name": "a", "marks": [1]},
    ),
    "TypedDict": (Point, {"x": 1, "y": 1}, {"x": 2, "y": 1}, {"x": 1, "y": 2}),
    "tuple": (tuple[int, ...], [1], [1, 2], [1, 3]),
}


@pytest.mark.parametrize(
    ("kind", "base", "mine", "theirs"), ONE_VALUE.values(), ids=ONE_VALUE.keys()
)
def test_what_has_parts_is_one_value(kind: Any, base: Any, mine: Any, theirs: Any) -> None:
    key, session = SessionKey[Any]("key", kind), session_of(key=base)

    session[key] = key.convert(mine)

    assert rebased(session, key=theirs)["key"] == mine


def test_each_value_of_a_dict_of_dataclasses_is_one_and_the_dict_is_merged() -> None:
    key = SessionKey("by_name", dict[str, Address])
    ann, bob = {"street": "Elm 1", "town": "Ulm"}, {"street": "Oak 2", "town": "Bonn"}
    session = session_of(by_name={"ann": ann})

    session[key]["ann"].street = "Ash 3"

    assert rebased(session, by_name={"ann": ann | {"town": "Jena"}, "bob": bob})["by_name"] == {
        "ann": {"street": "Ash 3", "town": "Ulm"},
        "bob": bob,
    }


HOLDS: dict[str, tuple[Any, Any, Any]] = {
    "dataclass": (Address, {"street": "a", "town": "b"}, {"street": "c", "town": "d"}),
    "Struct": (Basket, {"count": 1, "owner": None}, {"count": 2, "owner": None}),
    "attrs": (Profile, {"name": "a", "marks": [1]}, {"name": "b", "marks": [2]}),
    "bytearray": (bytearray, "YQ==", "Yg=="),
    "list": (list[date], ["2026-01-01"], ["2026-01-02"]),
    "dict": (dict[str, date], {"a": "2026-01-01"}, {"b": "2026-01-02"}),
}


@pytest.mark.parametrize(("kind", "was", "now"), HOLDS.values(), ids=HOLDS)
def test_whoever_holds_a_value_sees_what_others_wrote(kind: Any, was: Any, now: Any) -> None:
    key = SessionKey[Any]("key", kind)
    session = session_of(key=was)
    held = session[key]
    session["other"] = 1

    rebased(session, key=now)

    assert (held, session[key] is held) == (key.convert(now), True)


def test_a_value_inside_that_somebody_holds_sees_what_others_wrote() -> None:
    key = SessionKey("by_name", dict[str, Address])
    session = session_of(by_name={"ann": {"street": "Elm 1", "town": "Ulm"}})
    ann = session[key]["ann"]

    rebased(session, by_name={"ann": {"street": "Oak 2", "town": "Ulm"}})

    assert ann.street == "Oak 2"
    assert session[key]["ann"] is ann


def test_a_value_that_others_removed_is_not_there_any_more() -> None:
    session = session_of(tags=["a"])
    assert session[TAGS] == {"a"}

    rebased(session)

    assert TAGS not in session


def test_what_others_wrote_and_does_not_convert_is_told_to_whoever_asks() -> None:
    session = session_of(user={"name": "ann", "tags": []})
    assert session[USER].name == "ann"

    rebased(session, user=5)

    with pytest.raises(InvalidValue):
        session[USER]


def test_two_keys_that_mean_the_same_are_equal_and_others_are_not() -> None:
    assert SessionKey("count", int) == COUNT
    assert hash(SessionKey("count", int)) == hash(COUNT)
    assert SessionKey("count", str) != COUNT
    assert SessionKey("address", Address, merged=True) != ADDRESS
    assert COUNT.__eq__("count") is NotImplemented
