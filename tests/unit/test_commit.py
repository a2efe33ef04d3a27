"""What the end of a request means: every arm of the two tables."""

from __future__ import annotations

import itertools

import pytest

from aiosess import CookieOptions, SessionCookie, UnserializableValue
from aiosess.records.decide import (
    Action,
    Ending,
    Reply,
    Rules,
    decide,
    decide_reply,
    ending,
)
from aiosess.records.state import Intent, SessionState

KEEP = Intent.KEEP
EMPTY = Intent.EMPTY
RENEW = Intent.RENEW
REGENERATE = Intent.REGENERATE
DESTROY = Intent.DESTROY

NO_RULES = Rules()
RESAVE = Rules(resave=True)
ROLLING = Rules(rolling=True)
SAVE_UNINITIALIZED = Rules(save_uninitialized=True)


@pytest.mark.parametrize(
    ("end", "rules", "action"),
    [
        # A session that nothing was put in is not kept, unless the options say so.
        (Ending(), NO_RULES, Action.NOTHING),
        (Ending(is_modified=True), NO_RULES, Action.CREATE),
        (Ending(), SAVE_UNINITIALIZED, Action.CREATE),
        (Ending(), RESAVE, Action.NOTHING),
        (Ending(), ROLLING, Action.NOTHING),
        (Ending(is_touch_due=True), NO_RULES, Action.NOTHING),
        (Ending(is_resigned=True), NO_RULES, Action.NOTHING),
        # A session with a record is written when changed, and touched now and then.
        (Ending(is_stored=True), NO_RULES, Action.NOTHING),
        (Ending(is_stored=True), SAVE_UNINITIALIZED, Action.NOTHING),
        (Ending(is_stored=True, is_modified=True), NO_RULES, Action.REPLACE),
        (Ending(is_stored=True), RESAVE, Action.REPLACE),
        (Ending(is_stored=True, is_touch_due=True), NO_RULES, Action.TOUCH),
        (Ending(is_stored=True), ROLLING, Action.TOUCH),
        (Ending(is_stored=True, is_resigned=True), NO_RULES, Action.TOUCH),
        (Ending(is_stored=True, is_modified=True), ROLLING, Action.REPLACE),
        # invalidate(): the record goes, unless there are data again.
        (Ending(intent=EMPTY, is_empty=True), NO_RULES, Action.NOTHING),
        (Ending(intent=EMPTY, is_empty=True), SAVE_UNINITIALIZED, Action.NOTHING),
        (
            Ending(intent=EMPTY, is_empty=True, is_modified=True, is_stored=True),
            NO_RULES,
            Action.DELETE,
        ),
        (
            Ending(intent=EMPTY, is_empty=True, is_modified=True, is_stored=True),
            RESAVE,
            Action.DELETE,
        ),
        (Ending(intent=EMPTY, is_modified=True), NO_RULES, Action.CREATE),
        (Ending(intent=EMPTY, is_modified=True, is_stored=True), NO_RULES, Action.REPLACE),
        (Ending(intent=EMPTY, is_stored=True), NO_RULES, Action.NOTHING),
        # renew_id(): the data move, changed or not.
        (Ending(intent=RENEW, is_stored=True), NO_RULES, Action.RENEW),
        (Ending(intent=RENEW, is_stored=True, is_modified=True), NO_RULES, Action.RENEW),
        (Ending(intent=RENEW), NO_RULES, Action.NOTHING),
        (Ending(intent=RENEW, is_modified=True), NO_RULES, Action.CREATE),
        (Ending(intent=RENEW), SAVE_UNINITIALIZED, Action.CREATE),
        # regenerate(): the old record goes, with or without a new one.
        (Ending(intent=REGENERATE, is_stored=True), NO_RULES, Action.DELETE),
        (Ending(intent=REGENERATE, is_stored=True, is_modified=True), NO_RULES, Action.CREATE),
        (Ending(intent=REGENERATE, is_stored=True), SAVE_UNINITIALIZED, Action.CREATE),
        (Ending(intent=REGENERATE), NO_RULES, Action.NOTHING),
        (Ending(intent=REGENERATE, is_modified=True), NO_RULES, Action.CREATE),
        (Ending(intent=REGENERATE), SAVE_UNINITIALIZED, Action.CREATE),
        # destroy(): whatever else was done.
        (Ending(intent=DESTROY), SAVE_UNINITIALIZED, Action.NOTHING),
        (Ending(intent=DESTROY, is_modified=True), NO_RULES, Action.NOTHING),
        (Ending(intent=DESTROY, is_stored=True), NO_RULES, Action.DELETE),
        (Ending(intent=DESTROY, is_stored=True, is_modified=True), RESAVE, Action.DELETE),
    ],
)
def test_what_becomes_of_the_record(end: Ending, rules: Rules, action: Action) -> None:
    assert decide(end, rules) is action


BOOLEANS = (False, True)
ENDINGS = [
    Ending(
        intent=intent,
        is_modified=is_modified,
        is_stored=is_stored,
        is_empty=is_empty,
        is_touch_due=is_touch_due,
        is_resigned=is_resigned,
    )
    for intent, is_modified, is_stored, is_empty, is_touch_due, is_resigned in itertools.product(
        Intent, BOOLEANS, BOOLEANS, BOOLEANS, BOOLEANS, BOOLEANS
    )
]
RULES = [
    Rules(resave=resave, rolling=rolling, save_uninitialized=save_uninitialized)
    for resave, rolling, save_uninitialized in itertools.product(BOOLEANS, BOOLEANS, BOOLEANS)
]


@pytest.mark.parametrize("rules", RULES, ids=repr)
def test_without_a_record_the_storage_is_asked_for_nothing_but_a_new_one(rules: Rules) -> None:
    actions = {decide(end, rules) for end in ENDINGS if not end.is_stored}

    assert actions == {Action.NOTHING, Action.CREATE}


@pytest.mark.parametrize("rules", RULES, ids=repr)
def test_a_session_that_is_destroyed_is_never_written(rules: Rules) -> None:
    actions = {decide(end, rules) for end in ENDINGS if end.intent is DESTROY}

    assert actions == {Action.NOTHING, Action.DELETE}


@pytest.mark.parametrize("rules", RULES, ids=repr)
def test_what_was_put_in_is_never_dropped_in_silence(rules: Rules) -> None:
    actions = {
        decide(end, rules)
        for end in ENDINGS
        if end.is_modified and not end.is_empty and end.intent is not DESTROY
    }

    assert actions == {Action.CREATE, Action.REPLACE, Action.RENEW}


def decided_cookie(
    action: Action,
    end: Ending,
    rules: Rules = NO_RULES,
    *,
    is_persistent: bool = False,
    is_alias: bool = False,
) -> Reply:
    return decide_reply(action, end, rules, is_persistent=is_persistent, is_alias=is_alias)


STORED = Ending(is_stored=True)
MODIFIED = Ending(is_stored=True, is_modified=True)
RESIGNED = Ending(is_stored=True, is_resigned=True)


@pytest.mark.parametrize("is_alias", [False, True])
@pytest.mark.parametrize("action", [Action.CREATE, Action.RENEW])
def test_a_new_id_is_sent(*, action: Action, is_alias: bool) -> None:
    assert decided_cookie(action, MODIFIED, is_alias=is_alias) is Reply.SEND


@pytest.mark.parametrize("is_alias", [False, True])
def test_a_deleted_record_takes_the_cookie_with_it(*, is_alias: bool) -> None:
    assert decided_cookie(Action.DELETE, STORED, is_alias=is_alias) is Reply.CLEAR


@pytest.mark.parametrize(
    ("action", "end", "rules", "is_persistent", "expected"),
    [
        (Action.NOTHING, STORED, NO_RULES, True, Reply.LEAVE),
        (Action.TOUCH, STORED, NO_RULES, True, Reply.LEAVE),
        (Action.REPLACE, MODIFIED, NO_RULES, False, Reply.LEAVE),
        (Action.REPLACE, MODIFIED, NO_RULES, True, Reply.SEND),
        (Action.REPLACE, STORED, RESAVE, True, Reply.LEAVE),
        (Action.REPLACE, MODIFIED, ROLLING, False, Reply.SEND),
        (Action.REPLACE, STORED, Rules(resave=True, rolling=True), False, Reply.SEND),
        (Action.TOUCH, STORED, ROLLING, False, Reply.SEND),
        (Action.TOUCH, RESIGNED, NO_RULES, False, Reply.SEND),
        (
            Action.REPLACE,
            Ending(is_stored=True, is_modified=True, is_resigned=True),
            NO_RULES,
            False,
            Reply.SEND,
        ),
        (Action.NOTHING, Ending(), ROLLING, True, Reply.LEAVE),
        (Action.NOTHING, Ending(is_resigned=True), NO_RULES, True, Reply.LEAVE),
    ],
)
def test_the_cookie_of_a_known_session_is_sent_again_only_when_due(
    *,
    action: Action,
    end: Ending,
    rules: Rules,
    is_persistent: bool,
    expected: Reply,
) -> None:
    assert decided_cookie(action, end, rules, is_persistent=is_persistent) is expected


@pytest.mark.parametrize("end", [STORED, MODIFIED, RESIGNED])
@pytest.mark.parametrize("action", [Action.NOTHING, Action.TOUCH, Action.REPLACE])
def test_who_comes_with_an_old_id_is_never_given_the_new_one(action: Action, end: Ending) -> None:
    due = decided_cookie(action, end, ROLLING, is_persistent=True, is_alias=True)

    assert due is Reply.LEAVE


# What is asked of a session


def session_state() -> SessionState:
    return SessionState("id", SessionCookie(CookieOptions(secure=False)), 0.0)


def test_a_new_session_ends_as_it_began() -> None:
    end = ending(session_state(), is_touch_due=True, is_resigned=True)

    assert end == Ending(is_empty=True, is_touch_due=True, is_resigned=True)


def test_a_session_with_a_record_and_a_change_says_both() -> None:
    state = session_state()
    state.version = 1
    state.data["key"] = "value"
    state.must_be_written = True
    state.intent = RENEW

    end = ending(state, is_touch_due=False, is_resigned=False)

    assert end == Ending(intent=RENEW, is_modified=True, is_stored=True)


def test_a_session_whose_record_is_under_the_id_before_is_stored() -> None:
    state = session_state()
    state.version = 1
    state.move_to("new")

    assert ending(state, is_touch_due=False, is_resigned=False).is_stored


def test_a_value_that_cannot_be_kept_is_refused_before_anything_is_decided() -> None:
    state = session_state()
    state.data["key"] = {1, 2}
    state.originals["key"] = None

    with pytest.raises(UnserializableValue, match=r"^session\['key'\] is of type set"):
        ending(state, is_touch_due=False, is_resigned=False)


@pytest.mark.parametrize("is_empty", [True, False])
@pytest.mark.parametrize("is_persistent", [True, False])
@pytest.mark.parametrize("is_alias", [True, False])
@pytest.mark.parametrize("rules", [NO_RULES, SAVE_UNINITIALIZED])
def test_a_stored_session_that_was_only_read_needs_nothing(
    *, is_empty: bool, is_persistent: bool, is_alias: bool, rules: Rules
) -> None:
    """Visit leaves it alone without asking the tables."""
    end = Ending(is_stored=True, is_empty=is_empty)

    action = decide(end, rules)
    due = decide_reply(action, end, rules, is_persistent=is_persistent, is_alias=is_alias)

    assert not rules.acts_on_reads
    assert (action, due) == (Action.NOTHING, Reply.LEAVE)


@pytest.mark.parametrize("rules", [RESAVE, ROLLING])
def test_a_rule_that_acts_on_reads_says_so(rules: Rules) -> None:
    assert rules.acts_on_reads


@pytest.mark.parametrize("is_modified", [False, True], ids=["read", "changed"])
@pytest.mark.parametrize("is_touch_due", [False, True], ids=["not due", "due"])
def test_a_record_of_which_only_data_was_changed_is_written_or_else_touched_when_due(
    *, is_modified: bool, is_touch_due: bool
) -> None:
    # What a request does without asking the tables, where nothing else can have been done.
    end = Ending(is_stored=True, is_modified=is_modified, is_touch_due=is_touch_due)

    action = decide(end, NO_RULES)

    otherwise = Action.TOUCH if is_touch_due else Action.NOTHING
    assert action is (Action.REPLACE if is_modified else otherwise)


@pytest.mark.parametrize("is_modified", [False, True], ids=["read", "changed"])
@pytest.mark.parametrize("is_persistent", [False, True], ids=["until the end", "with an end"])
@pytest.mark.parametrize("is_alias", [False, True], ids=["its own id", "an old id"])
def test_the_cookie_of_such_a_record_is_sent_when_its_end_moves_on(
    *, is_modified: bool, is_persistent: bool, is_alias: bool
) -> None:
    end = Ending(is_stored=True, is_modified=is_modified)
    action = decide(end, NO_RULES)

    cookie = decide_reply(action, end, NO_RULES, is_persistent=is_persistent, is_alias=is_alias)

    is_sent = is_modified and is_persistent and not is_alias
    assert cookie is (Reply.SEND if is_sent else Reply.LEAVE)
