"""What a handler holds: what is noticed, what is merged, what is taken back."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from aiosess import (
    MISSING,
    CookieOptions,
    InvalidValue,
    MergeConflict,
    Reason,
    Session,
    SessionCookie,
    SessionGone,
    SessionKey,
    UnserializableValue,
)
from aiosess.records.changes import JSON
from aiosess.records.format import Record
from aiosess.records.merge import Lost, freeze
from aiosess.records.state import Intent, SessionState
from aiosess.session import End
from aiosess.testing import put_session

T = TypeVar("T")

COOKIE = CookieOptions(secure=False)


class Requests:
    """Notes what the session asks to have done to itself."""

    def __init__(self) -> None:
        self.made: list[str] = []

    async def save(self) -> bool:
        self.made.append("save")
        return True

    async def reload(self) -> None:
        self.made.append("reload")

    async def touch(self) -> bool:
        self.made.append("touch")
        return True

    async def destroy(self) -> None:
        self.made.append("destroy")

    async def change_id(self, intent: Intent) -> None:
        self.made.append(intent.name)

    @contextmanager
    def watched(self, end: End) -> Generator[None]:
        self.made.append("watched")
        end(Reason.ENDED)
        yield

    def close_socket(self, _ws: web.WebSocketResponse, reason: Reason) -> None:
        self.made.append(f"close_socket {reason.name}")

    async def atomic(self, change: Callable[[Session], T]) -> T:
        self.made.append("atomic")
        return change(Session(stored(), self))

    async def bind(
        self, principal: str, *, label: str | None, labels: Mapping[str, str] | None
    ) -> None:
        self.made.append(f"bind {principal} {label} {labels}")

    async def unbind(self) -> None:
        self.made.append("unbind")

    def note_late(self) -> None:
        self.made.append("note_late")

    async def authenticated(self) -> None:
        self.made.append("authenticated")

    def now(self) -> float:
        return 1000.0

    def expires_at(self) -> float | None:
        return None

    def declare(self, key: SessionKey[Any]) -> None:
        self.made.append(f"declare {key}")

    def note_invalid(self, error: InvalidValue) -> None:
        self.made.append(f"invalid {error.key}")


def stored(**data: Any) -> SessionState:
    return SessionState("id", SessionCookie(COOKIE), 1000.5, data=data, version=1)


def fresh() -> SessionState:
    return SessionState("id", SessionCookie(COOKIE), 1000.5)


def session_of(state: SessionState) -> Session:
    return Session(state, Requests())


def record(**data: Any) -> Record:
    return Record(data, None, {}, 1000.5)


# What is noticed


def nothing(_session: Session) -> None:
    pass


def read_everything(session: Session) -> None:
    dict(session)


def assign_equal(session: Session) -> None:
    session["count"] = 1
    session["cart"] = [{"item": "tea"}]


def set_and_delete(session: Session) -> None:
    session["new"] = 1
    del session["new"]


def delete_and_set_again(session: Session) -> None:
    cart = session["cart"]
    del session["cart"]
    session["cart"] = cart


def change_and_change_back(session: Session) -> None:
    session["cart"].append(2)
    session["cart"].pop()
    session["count"] += 1
    session["count"] -= 1


def missing_key(session: Session) -> None:
    session.get("missing")
    session.pop("missing", None)


@pytest.mark.parametrize(
    "use",
    [
        nothing,
        read_everything,
        assign_equal,
        set_and_delete,
        delete_and_set_again,
        change_and_change_back,
        missing_key,
    ],
)
def test_a_session_that_is_as_it_was_read_is_not_modified(use: Callable[[Session], None]) -> None:
    state = stored(count=1, cart=[{"item": "tea"}])

    use(session_of(state))

    assert not state.is_modified


def set_item(session: Session) -> None:
    session["count"] = 2


def set_true_for_one(session: Session) -> None:
    session["count"] = True


def set_float_for_one(session: Session) -> None:
    session["count"] = 1.0


def set_true_inside(session: Session) -> None:
    session["cart"][0]["count"] = True


def set_none_for_missing(session: Session) -> None:
    session["missing"] = None


def delete(session: Session) -> None:
    del session["count"]


def pop(session: Session) -> None:
    session.pop("count")


def clear(session: Session) -> None:
    session.clear()


def update(session: Session) -> None:
    session.update(count=2)


def set_default(session: Session) -> None:
    session.setdefault("new", [])


def change_set_default(session: Session) -> None:
    session.setdefault("cart", []).append(1)


def change_inside(session: Session) -> None:
    session["cart"][0]["count"] += 1


def change_through_get(session: Session) -> None:
    session.get("cart", []).append(1)


def change_through_values(session: Session) -> None:
    _, cart = session.values()
    cart.append(1)


def change_through_items(session: Session) -> None:
    dict(session.items())["cart"].clear()


def delete_then_change_and_set_again(session: Session) -> None:
    cart = session.pop("cart")
    cart.append(1)
    session["cart"] = cart


def replace_then_change(session: Session) -> None:
    session["cart"] = [{"count": 1}]
    session["cart"].append(1)


@pytest.mark.parametrize(
    "use",
    [
        set_item,
        set_true_for_one,
        set_float_for_one,
        set_true_inside,
        set_none_for_missing,
        delete,
        pop,
        clear,
        update,
        set_default,
        change_set_default,
        change_inside,
        change_through_get,
        change_through_values,
        change_through_items,
        delete_then_change_and_set_again,
        replace_then_change,
    ],
)
def test_a_change_is_noticed(use: Callable[[Session], None]) -> None:
    state = stored(count=1, cart=[{"count": 1}])

    use(session_of(state))

    assert state.is_modified


def test_changed_marks_a_session_that_seems_unchanged() -> None:
    state = stored()

    session_of(state).changed()

    assert state.is_modified


def test_a_cookie_attribute_of_its_own_is_a_change() -> None:
    state = stored()

    session_of(state).max_age = 60

    assert state.is_modified


def test_changes_tell_the_key_the_original_and_the_value() -> None:
    state = stored(count=1, gone=None)
    session = session_of(state)
    session["count"] = 2
    session["new"] = "a"
    del session["gone"]

    assert state.changes() == {
        "count": (1, 2),
        "new": (MISSING, "a"),
        "gone": (None, MISSING),
    }


@pytest.mark.parametrize(
    ("value", "path"), [({1}, "session['key']"), ({"a": [b""]}, "session['key']['a'][0]")]
)
def test_a_value_that_cannot_be_kept_is_refused_with_its_path(value: object, path: str) -> None:
    state = stored()
    session_of(state)["key"] = value

    with pytest.raises(UnserializableValue) as caught:
        state.changes()

    assert caught.value.path == path


def test_after_saving_nothing_is_modified() -> None:
    state = stored(count=1)
    session = session_of(state)
    session["count"] = 2
    session.max_age = 60
    session.changed()

    state.saved(2, state.snapshot())

    assert not state.is_modified
    assert state.version == 2


def test_a_container_that_is_changed_after_saving_is_noticed() -> None:
    state = stored(cart=[])
    cart = session_of(state)["cart"]
    cart.append(1)
    state.saved(2, state.snapshot())

    cart.append(2)

    assert state.changes() == {"cart": (b"[1]", [1, 2])}


def test_what_changes_while_the_record_is_written_is_still_to_be_saved() -> None:
    state = stored(cart=[], count=1, gone=1)
    session = session_of(state)
    cart = session["cart"]
    session["count"] = 2
    session.cookie.path = "/shop"
    snapshot = state.snapshot()
    cart.append(1)
    session["count"], session["new"] = 3, 1
    del session["gone"]
    session.max_age = 60

    state.saved(2, snapshot)

    assert state.changes() == {
        "cart": (b"[]", [1]),
        "count": (2, 3),
        "new": (MISSING, 1),
        "gone": (1, MISSING),
    }
    assert state.original_own == {"path": "/shop"}


def test_a_session_that_starts_over_is_not_gone_any_more() -> None:
    state = stored(count=1)
    state.is_gone = True

    state.clear(0)

    assert not state.is_gone


def test_an_id_can_change_though_a_value_cannot_be_kept() -> None:
    state = stored(count=1)
    session_of(state)["bad"] = [object()]

    state.move_to("another")

    with pytest.raises(UnserializableValue, match=r"session\['bad'\]\[0\] is of type object"):
        state.changes()


# Rebase


def test_rebase_takes_what_others_changed_and_keeps_what_we_changed() -> None:
    state = stored(mine=1, theirs=1, gone=1)
    session = session_of(state)
    session["mine"] = 2

    state.rebase(record(mine=1, theirs=2, new=3), 2, "raise")

    assert state.data == {"mine": 2, "theirs": 2, "new": 3}
    assert state.version == 2
    assert state.changes() == {"mine": (1, 2)}


def test_rebase_keeps_a_deletion() -> None:
    state = stored(key=1)
    del session_of(state)["key"]

    state.rebase(record(key=1, other=2), 2, "raise")

    assert state.data == {"other": 2}
    assert state.changes() == {"key": (1, MISSING)}


def test_rebase_keeps_a_key_that_others_deleted_and_we_changed() -> None:
    state = stored(key=1)
    session_of(state)["key"] = 2

    state.rebase(record(), 2, "mine")

    assert state.data == {"key": 2}
    assert state.changes() == {"key": (MISSING, 2)}


def test_rebase_keeps_the_container_that_the_handler_holds() -> None:
    state = stored(cart=[1])
    cart = session_of(state)["cart"]
    state.rebase(record(cart=[1], other=1), 2, "raise")

    cart.append(2)

    assert state.changes() == {"cart": (b"[1]", [1, 2])}


def test_rebase_keeps_the_container_that_the_handler_holds_at_every_depth() -> None:
    state = stored(cart={"items": [], "by": {"name": "a"}})
    cart = session_of(state)["cart"]
    items, by = cart["items"], cart["by"]
    items.append("mine")
    state.rebase(record(cart={"items": ["theirs"], "by": {"name": "b"}}, other=1), 2, "raise")

    items.append("later")
    by["age"] = 7

    assert state.data["cart"] == {
        "items": ["theirs", "mine", "later"],
        "by": {"name": "b", "age": 7},
    }


def test_rebase_keeps_the_container_that_the_handler_put_in() -> None:
    state = stored()
    cart = session_of(state).setdefault("cart", {})
    cart["apple"] = 1
    state.rebase(record(cart={"pear": 1}), 2, "raise")

    cart["plum"] = 1

    assert state.data == {"cart": {"apple": 1, "pear": 1, "plum": 1}}


def test_rebase_leaves_an_object_that_the_handler_put_under_two_keys_right_under_both() -> None:
    state = stored()
    shared: list[str] = ["mine"]
    session_of(state).update(a=shared, b=shared)

    state.rebase(record(b=["theirs"]), 2, "raise")

    assert state.data == {"a": ["mine"], "b": ["theirs", "mine"]}


def test_rebase_again_makes_no_addition_twice() -> None:
    state = stored(flash=["a"])
    session_of(state)["flash"].append("mine")
    state.rebase(record(flash=["a", "b"]), 2, "raise")

    state.rebase(record(flash=["a", "b", "c"]), 3, "raise")

    assert state.data == {"flash": ["a", "b", "c", "mine"]}


def test_rebase_returns_what_lost() -> None:
    state = stored(cart={"n": 1, "m": 1}, key=1)
    session = session_of(state)
    session["cart"]["n"] = 2
    session.cookie.path = "/mine"

    lost = state.rebase(Record({"cart": {"n": 3}}, None, {"path": "/theirs"}, None), 2, "mine")

    assert lost == [Lost(("cart", "n"), "theirs"), Lost(("cookie", "path"), "theirs")]


def test_rebase_takes_a_key_that_is_whole_as_it_stands() -> None:
    state = stored(address={"street": "a", "town": "a"})
    session_of(state)["address"]["street"] = "b"

    state.rebase(record(address={"street": "a", "town": "b"}), 2, "theirs", frozenset({"address"}))

    assert state.data == {"address": {"street": "a", "town": "b"}}


def test_rebase_takes_their_container_where_the_handler_only_read_it() -> None:
    state = stored(cart=[1])
    session = session_of(state)
    session["cart"].index(1)

    state.rebase(record(cart=[1, 2]), 2, "raise")

    assert session["cart"] == [1, 2]
    assert not state.is_modified


def test_rebase_notices_a_change_inside_their_container_afterwards() -> None:
    state = stored(cart=[1])
    session = session_of(state)
    session["cart"].index(1)
    state.rebase(record(cart=[1, 2]), 2, "raise")

    session["cart"].append(3)

    assert state.changes() == {"cart": (b"[1,2]", [1, 2, 3])}


def test_rebase_again_counts_from_the_newest_record() -> None:
    state = stored(count=1)
    session_of(state)["count"] = 5
    state.rebase(record(count=2), 2, "mine")

    state.rebase(record(count=2, other=1), 3, "raise")

    assert state.data == {"count": 5, "other": 1}


def test_rebase_drops_our_change_where_theirs_wins() -> None:
    state = stored(key=1)
    session_of(state)["key"] = 2

    state.rebase(record(key=3), 2, "theirs")

    assert state.data == {"key": 3}
    assert not state.is_modified


def test_rebase_that_is_refused_changes_nothing() -> None:
    state = stored(key=1, other=1)
    session_of(state)["key"] = 2

    with pytest.raises(MergeConflict):
        state.rebase(record(key=3, other=2), 2, "raise")

    assert state.data == {"key": 2, "other": 1}
    assert state.version == 1
    assert state.changes() == {"key": (1, 2)}


def test_rebase_merges_the_cookie_by_attribute() -> None:
    state = stored()
    session_of(state).cookie.path = "/mine"

    state.rebase(Record({}, 60.0, {"httponly": False}, None), 2, "raise")

    assert state.cookie.own == {"path": "/mine", "httponly": False, "max_age": 60.0}
    assert state.original_own == {"httponly": False, "max_age": 60.0}


def test_rebase_takes_a_cookie_attribute_away_that_we_took_away() -> None:
    state = stored()
    state.cookie.own["path"] = state.original_own["path"] = "/shop"
    state.cookie.path = "/"

    state.rebase(Record({}, None, {"path": "/shop"}, None), 2, "raise")

    assert state.cookie.own == {}
    assert state.is_modified


def test_a_function_that_merges_is_not_asked_about_the_cookie() -> None:
    state = stored()
    session_of(state).max_age = 5

    state.rebase(Record({}, 60.0, {}, None), 2, lambda *_: pytest.fail("asked"))

    assert state.cookie.max_age == 5


KEYS_USED = frozenset("abcd")
KEYS = st.sampled_from(sorted(KEYS_USED))
SCALARS = st.none() | st.booleans() | st.sampled_from([0, 1, 0.0, 1.0, "", "1"])
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=4
)
DATA = st.dictionaries(KEYS, VALUES)


@settings(deadline=None, max_examples=50)
@given(base=DATA, mine=DATA, theirs=DATA)
def test_rebase_keeps_what_only_we_changed_and_takes_the_rest(
    base: dict[str, Any], mine: dict[str, Any], theirs: dict[str, Any]
) -> None:
    state = stored(**copy.deepcopy(base))
    session = session_of(state)
    for key in base.keys() - mine.keys():
        del session[key]
    session.update(copy.deepcopy(mine))
    ours = {key for key in base.keys() | mine.keys() if differ(base, mine, key)}
    others = {key for key in base.keys() | theirs.keys() if differ(base, theirs, key)}

    state.rebase(record(**copy.deepcopy(theirs)), 2, "mine")

    assert not any(differ(mine, state.data, key) for key in ours - others)
    assert not any(differ(theirs, state.data, key) for key in KEYS_USED - ours)
    assert state.changes().keys() == {key for key in ours if differ(theirs, state.data, key)}


@settings(deadline=None, max_examples=50)
@given(base=DATA, mine=DATA)
def test_rollback_brings_back_whatever_was_read(base: dict[str, Any], mine: dict[str, Any]) -> None:
    state = stored(**copy.deepcopy(base))
    session = session_of(state)
    for value in session.values():
        if isinstance(value, list | dict):
            value.clear()
    session.update(mine)
    for key in base.keys() - mine.keys():
        del session[key]

    session.rollback()

    assert state.data.keys() == base.keys()
    assert not any(differ(state.data, base, key) for key in base)
    assert not state.is_modified


def differ(one: dict[str, Any], other: dict[str, Any], key: str) -> bool:
    return bool(JSON.changed({key: freeze(one.get(key, MISSING))}, other))


# Another id


def test_a_session_that_leaves_its_id_remembers_the_one_before() -> None:
    state = stored(key=1)

    state.move_to("new")

    assert (state.session_id, state.version) == ("new", None)
    assert state.previous is not None
    assert (state.previous.session_id, state.previous.version) == ("id", 1)
    assert state.data == {"key": 1}


def test_leaving_twice_remembers_the_id_that_has_a_record() -> None:
    state = stored()
    state.move_to("new")

    state.move_to("newer")

    assert state.previous is not None
    assert state.previous.session_id == "id"


def test_a_new_session_leaves_nothing_behind() -> None:
    state = fresh()

    state.move_to("new")

    assert state.previous is None


def test_starting_over_forgets_everything() -> None:
    state = stored(key=1)
    session = session_of(state)
    session["key"] = 2
    session.max_age = 60
    session.changed()

    state.clear(2000)

    assert state.data == {}
    assert state.created_at == 2000
    assert state.cookie.max_age is None
    assert not state.is_modified


# Rollback


def change_everything(session: Session) -> None:
    session["key"] = 2
    session["new"] = 3
    session["cart"].append(4)
    del session["gone"]
    session.max_age = 60
    session.changed()


def as_it_was_read() -> SessionState:
    return stored(key=1, cart=[1], gone=[1], untouched=[1])


def test_rollback_forgets_what_this_request_did() -> None:
    state = as_it_was_read()
    session = session_of(state)
    change_everything(session)

    session.rollback()

    assert state == replace(as_it_was_read(), cookie=state.cookie)
    assert state.cookie.own == {}
    assert not state.is_modified


def test_rollback_brings_back_what_was_invalidated() -> None:
    state = as_it_was_read()
    session = session_of(state)
    session.invalidate()

    session.rollback()

    assert state == replace(as_it_was_read(), cookie=state.cookie)


@pytest.mark.parametrize("is_empty", [True, False], ids=["regenerated", "renewed"])
@pytest.mark.parametrize("is_before", [True, False], ids=["before", "after"])
def test_rollback_goes_back_to_the_id_before(*, is_empty: bool, is_before: bool) -> None:
    state = as_it_was_read()
    session = session_of(state)
    if is_before:
        change_everything(session)
    state.move_to("new")
    if is_empty:
        state.clear(2000)
        session.update(cart=[], gone=[])
    state.intent = Intent.REGENERATE if is_empty else Intent.RENEW
    if not is_before:
        change_everything(session)

    session.rollback()

    assert state.data == as_it_was_read().data
    assert (state.session_id, state.version, state.previous) == ("id", 1, None)
    assert (state.created_at, state.intent) == (1000.5, Intent.KEEP)
    assert state.cookie.own == {}
    assert not state.is_modified


def test_a_change_after_rollback_is_noticed() -> None:
    state = as_it_was_read()
    session = session_of(state)
    session["cart"].append(2)
    session.rollback()

    session["cart"].append(3)

    assert state.changes() == {"cart": (b"[1]", [1, 3])}


# invalidate


def test_invalidate_empties_and_asks_for_the_record_to_be_deleted() -> None:
    state = stored(key=1)

    session_of(state).invalidate()

    assert (state.data, state.intent) == ({}, Intent.EMPTY)


@pytest.mark.parametrize("intent", [Intent.RENEW, Intent.REGENERATE])
def test_invalidate_after_the_id_changed_deletes_the_record_under_the_old_one(
    intent: Intent,
) -> None:
    state = stored(key=1)
    state.move_to("new")
    state.intent = intent

    session_of(state).invalidate()

    assert (state.data, state.intent) == ({}, Intent.REGENERATE)
    assert not state.is_modified


# What it tells of itself


def test_a_session_with_a_record_is_not_new() -> None:
    session = session_of(stored(key=1))

    assert not session.new
    assert session.identity == session.id == "id"


def test_a_session_without_a_record_is_new_and_has_no_identity_yet() -> None:
    session = session_of(fresh())

    assert session.new
    assert session.identity is None
    assert session.id == "id"


def test_a_renewed_session_is_not_new() -> None:
    state = stored()
    state.move_to("new")
    state.intent = Intent.RENEW

    assert not session_of(state).new


def test_a_regenerated_session_is_new() -> None:
    state = stored()
    state.move_to("new")
    state.intent = Intent.REGENERATE

    assert session_of(state).new


def test_created_is_when_the_session_began_whatever_is_written() -> None:
    session = session_of(stored())

    session["key"] = 1

    assert session.created == 1000


def test_max_age_is_the_cookies_in_whole_seconds() -> None:
    session = session_of(stored())
    assert session.max_age is None

    session.cookie.max_age = 59.9

    assert session.max_age == 59


def test_a_session_is_a_mapping() -> None:
    session = session_of(stored(a=1, b=[2]))

    assert dict(session) == {"a": 1, "b": [2]}
    assert "a" in session
    assert len(session) == 2
    assert not session.empty


def test_the_representation_tells_no_secret() -> None:
    session = session_of(stored(password="hunter2"))

    assert repr(session) == "<Session new=False keys=['password']>"


@pytest.mark.parametrize("key", ["cookie", "__aiosess"])
def test_a_key_of_the_record_cannot_be_used(key: str) -> None:
    state = stored()

    with pytest.raises(ValueError, match=r"belongs to the record: use another key$"):
        session_of(state)[key] = 1

    assert not state.is_modified


@pytest.mark.parametrize("key", [1, None, b"a", ("a",)])
def test_a_key_that_is_not_text_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match=r"^session keys are str, not "):
        session_of(stored())[key] = 1


def test_deleting_what_is_not_there_is_a_key_error() -> None:
    state = stored()

    with pytest.raises(KeyError, match="missing"):
        del session_of(state)["missing"]

    assert not state.is_modified


def test_the_id_of_a_new_session_can_be_chosen() -> None:
    session = session_of(fresh())

    session.set_new_identity("chosen")

    assert session.id == "chosen"


def test_the_id_of_a_session_with_a_record_cannot_be_chosen() -> None:
    session = session_of(stored())

    with pytest.raises(RuntimeError, match="Can't change identity for a session which is not new"):
        session.set_new_identity("chosen")


@pytest.mark.parametrize("identity", [None, "", 5, b"id"])
def test_an_id_is_text_that_is_not_empty(identity: Any) -> None:
    session = session_of(fresh())

    with pytest.raises(TypeError, match="a session id must be a str that is not empty"):
        session.set_new_identity(identity)

    assert session.id == "id"


# What it asks for


async def test_each_request_is_passed_on() -> None:
    requests = Requests()
    session = Session(stored(), requests)

    await session.save()
    await session.reload()
    await session.touch()
    await session.regenerate()
    await session.renew_id()
    await session.atomic(len)
    await session.destroy()

    assert requests.made == ["save", "reload", "touch", "REGENERATE", "RENEW", "atomic", "destroy"]


async def test_destroying_twice_is_asked_once() -> None:
    requests = Requests()
    session = Session(stored(key=1), requests)

    await session.destroy()
    await session.destroy()

    assert requests.made == ["destroy"]
    assert dict(session) == {}


USES: list[Callable[[Session], Any]] = [
    lambda session: session.save(),
    lambda session: session.reload(),
    lambda session: session.touch(),
    lambda session: session.regenerate(),
    lambda session: session.renew_id(),
    lambda session: session.atomic(len),
]


@pytest.mark.parametrize("use", USES)
async def test_a_destroyed_session_asks_for_nothing(use: Callable[[Session], Any]) -> None:
    requests = Requests()
    session = Session(stored(), requests)
    await session.destroy()

    with pytest.raises(SessionGone, match="call regenerate\\(\\) in the place of destroy"):
        await use(session)

    assert requests.made == ["destroy"]


@pytest.mark.parametrize(
    "use", [lambda session: session.update(key=1), lambda session: session.rollback()]
)
async def test_a_destroyed_session_cannot_be_changed(use: Callable[[Session], Any]) -> None:
    session = session_of(stored(key=1))
    await session.destroy()

    with pytest.raises(SessionGone, match="the session was destroyed"):
        use(session)


async def test_a_session_that_could_not_be_destroyed_is_not_over() -> None:
    class Refusing(Requests):
        async def destroy(self) -> None:
            raise OSError

    session = Session(stored(key=1), Refusing())

    with pytest.raises(OSError):  # noqa: PT011 - it says nothing more
        await session.destroy()

    assert dict(session) == {"key": 1}


# What is more than changing data


def set_a_max_age(session: Session) -> None:
    session.max_age = 60


def choose_an_id(session: Session) -> None:
    session.set_new_identity("chosen")


@pytest.mark.parametrize(
    "use",
    [
        lambda session: session.cookie,
        set_a_max_age,
        Session.changed,
        Session.invalidate,
        choose_an_id,
    ],
    ids=["cookie", "max_age", "changed", "invalidate", "set_new_identity"],
)
def test_what_does_more_than_change_data_makes_a_session_that_is_not_plain(
    use: Callable[[Session], object],
) -> None:
    state = fresh()
    state.only_data = True

    use(session_of(state))

    assert not state.only_data


def test_a_plain_session_whose_data_changed_says_so_in_its_originals() -> None:
    def change(session: Session) -> None:
        session["count"] = 2

    def change_inside(session: Session) -> None:
        session["cart"].append("tea")

    def delete(session: Session) -> None:
        del session["count"]

    states = [stored(count=1, cart=[]) for _ in range(3)]

    for state, act in zip(states, (change, change_inside, delete), strict=True):
        act(session_of(state))

    assert [list(state.originals) for state in states] == [["count"], ["cart"], ["count"]]


async def test_a_task_that_waits_for_the_end_may_be_cancelled_as_it_comes() -> None:
    class Ending(Requests):
        @contextmanager
        def watched(self, end: End) -> Generator[None]:
            self.end = end
            yield

    requests = Ending()
    waiting = asyncio.create_task(Session(stored(), requests).ended())
    await asyncio.sleep(0)

    waiting.cancel()
    requests.end(Reason.ENDED)

    with pytest.raises(asyncio.CancelledError):
        await waiting


# A copy of a session is one of its data


def test_a_copy_is_a_dict() -> None:
    session = put_session(make_mocked_request("GET", "/"), {"cart": ["pear"]})

    assert copy.copy(session) == {"cart": ["pear"]}


def test_what_is_changed_in_a_deep_copy_is_not_changed_in_the_session() -> None:
    session = put_session(make_mocked_request("GET", "/"), {"cart": ["pear"]})

    copy.deepcopy(session)["cart"].append("apple")

    assert session["cart"] == ["pear"]


def test_what_is_pickled_is_a_dict() -> None:
    session = put_session(make_mocked_request("GET", "/"), {"cart": ["pear"]})

    assert pickle.loads(pickle.dumps(session)) == {"cart": ["pear"]}  # noqa: S301 - our own bytes
