"""What is rare with values that have a type."""

from __future__ import annotations

import dataclasses
from typing import Any, TypedDict

import pytest
from aiohttp.test_utils import make_mocked_request

from aiosess import InvalidValue, Session, SessionKey
from aiosess.records.views import _UNLIKE, _frozen, _with_fields
from aiosess.testing import put_session


@dataclasses.dataclass(frozen=True)
class Fixed:
    name: str


class Tree(TypedDict):
    name: str
    below: list[Tree]


CART = SessionKey("cart", list[str], default_factory=list)


@pytest.fixture
def session() -> Session:
    return put_session(make_mocked_request("GET", "/"), {"n": "no number"})


def test_a_key_without_a_default_makes_none() -> None:
    with pytest.raises(LookupError, match="has no default"):
        SessionKey("n", int).make_default()


def test_a_default_in_the_place_of_what_does_not_convert_need_be_told_to_nobody() -> None:
    key = SessionKey("n", int, default=5, on_invalid="default")

    assert key.convert("no number") == 5


def test_a_default_in_the_place_of_what_does_not_convert_is_told_to_who_listens() -> None:
    heard: list[InvalidValue] = []
    key = SessionKey("n", int, default=5, on_invalid="default")

    key.convert("no number", heard.append)

    assert [each.key for each in heard] == ["n"]


def test_a_value_that_cannot_be_kept_is_like_no_other() -> None:
    endless: list[Any] = []
    endless.append(endless)

    assert _frozen(endless) is _UNLIKE


def test_a_value_that_is_fixed_is_replaced_as_a_whole() -> None:
    wanted = Fixed("ann")

    assert _with_fields(Fixed("bob"), wanted) is wanted


def test_a_key_that_is_not_there_is_a_key_error(session: Session) -> None:
    with pytest.raises(KeyError, match="nothing"):
        session["nothing"]


def test_what_hooks_refuse_is_named_by_its_key() -> None:
    class Odd:
        pass

    def refuse(value: Any) -> Any:
        raise TypeError(value)

    key = SessionKey("odd", Odd, enc_hook=refuse, dec_hook=lambda _kind, plain: plain)

    with pytest.raises(Exception, match="odd"):
        key.to_builtins(Odd())


def test_what_was_added_to_a_default_is_found_by_its_name(session: Session) -> None:
    session[CART].append("pear")

    assert session["cart"] == ["pear"]


def test_a_default_that_was_looked_at_can_be_deleted(session: Session) -> None:
    assert session[CART] == []

    del session["cart"]

    assert "cart" not in session


def test_a_type_that_holds_itself_is_a_type() -> None:
    tree: Tree = {"name": "root", "below": [{"name": "leaf", "below": []}]}

    assert SessionKey("tree", Tree).convert(tree) == tree


def test_what_hooks_know_can_be_merged_inside() -> None:
    class Odd:
        pass

    key = SessionKey(
        "odd", Odd, merged=True, enc_hook=lambda _: {}, dec_hook=lambda _kind, _plain: Odd()
    )

    assert key.to_builtins(Odd()) == {}
