"""What holds data, ids or secrets shows none of it, wherever it is printed or tracked."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
import traceback
from collections.abc import Iterator
from typing import Any, Final, cast

import msgspec
import pytest
from sentry_sdk.serializer import serialize

import aiosess
from aiosess import MemoryStorage, SessionOptions
from aiosess.attributes import CookieOptions, SessionCookie
from aiosess.interop.session import BorrowedSession
from aiosess.privacy import forget_locals, private
from aiosess.records.state import SessionState
from aiosess.session import Session
from aiosess.transports.signing import Signer

MARK: Final = "what-nobody-should-read"

# Options and decisions: what they are made of is in no session, and helps who reads a traceback.
HARMLESS: Final = {
    "attributes.CookieOptions",
    "attributes.SessionCookie",
    "guard.breaker.BreakerOptions",
    "guard.breaker.NodeHealth",
    "guard.budget._Act",
    "guard.observed.StorageCall",
    "guard.retries.RetryPolicy",
    "options.Plan",
    "options.SessionOptions",
    "outages.Outage",
    "records.bonding.Limits",
    "records.decide.Ending",
    "records.decide.Rules",
    "records.merge.Lost",
    "records.repository.RecordOptions",
    "routes.Route",
    "routes._Entry",
    "timeouts.Timeouts",
}


def name_of(holder: type) -> str:
    return f"{holder.__module__}.{holder.__qualname__}".removeprefix("aiosess.")


def modules() -> Iterator[Any]:
    """Give each module of the package that can be imported without being run."""
    for module in pkgutil.walk_packages(aiosess.__path__, "aiosess."):
        if not module.name.endswith("__main__"):
            yield importlib.import_module(module.name)


def fields_of(holder: Any) -> tuple[str, ...]:
    """Return the fields that Python itself, or msgspec, would show of a class."""
    if dataclasses.is_dataclass(holder):
        return tuple(field.name for field in dataclasses.fields(holder))
    fields = "__struct_fields__" if issubclass(holder, msgspec.Struct) else "_fields"
    return tuple(getattr(holder, fields, ()))


HOLDERS: Final = sorted(
    {
        thing
        for module in modules()
        for thing in vars(module).values()
        if isinstance(thing, type) and thing.__module__.startswith("aiosess.")
        if fields_of(thing) and name_of(thing) not in HARMLESS
        if not name_of(thing).startswith("testing.")
    },
    key=name_of,
)


def filled(holder: Any) -> Any:
    """Return an object of a class whose fields all hold the mark."""
    names = fields_of(holder)
    if not dataclasses.is_dataclass(holder):
        return holder(*[MARK] * len(names))
    filled: Any = object.__new__(cast("type[Any]", holder))
    for name in names:
        object.__setattr__(filled, name, MARK)
    return filled


def shown(thing: object) -> str:
    """Return all that printing and tracking make of *thing*."""
    return f"{thing!r} {thing} {serialize({'thing': thing}, is_vars=True)}"


@pytest.mark.parametrize("holder", HOLDERS, ids=name_of)
def test_what_has_fields_shows_those_only_that_were_chosen(holder: Any) -> None:
    chosen = repr(filled(holder)).count("=")

    assert shown(filled(holder)).count(MARK) == 3 * chosen
    assert chosen < len(fields_of(holder))


@pytest.mark.parametrize(
    "name",
    [
        "clients.memcached.Value",
        "clients.redis_urls._Parts",
        "records.aliases.Found",
        "records.format.Former",
        "records.format.Record",
        "records.state.SessionState",
        "records.writing.Written",
        "storages.base.Stored",
        "storages.memory._Entry",
        "transports.base.SignedId",
    ],
)
def test_what_holds_a_session_or_its_id_is_among_them(name: str) -> None:
    assert name in map(name_of, HOLDERS)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_called_harmless_is_still_there(name: str) -> None:
    module, _, qualname = name.rpartition(".")

    assert fields_of(getattr(importlib.import_module(f"aiosess.{module}"), qualname))


def test_what_is_chosen_is_shown_and_the_rest_is_not() -> None:
    @private("kind")
    class Parcel:
        kind, content = "letter", MARK

    assert shown(Parcel()).count("<Parcel kind='letter'>") == 3
    assert MARK not in shown(Parcel())


@pytest.mark.parametrize("kind", [Session, BorrowedSession])
def test_a_session_shows_its_keys_and_no_value(kind: Any) -> None:
    state = SessionState(MARK, SessionCookie(CookieOptions()), 0.0, {"name": MARK})
    further = [None] if kind is BorrowedSession else []

    text = shown(kind(state, None, *further))

    assert MARK not in text
    assert text.count("keys=['name']") == 3


async def test_options_a_signer_and_a_storage_show_no_secret_and_no_record() -> None:
    storage = MemoryStorage()
    storage._events.tell_once = lambda *_args, **_details: None  # type: ignore[method-assign]
    await storage.create(MARK, MARK.encode(), 60)
    options = SessionOptions(secret=MARK * 2, storage=storage)
    signer = Signer(MARK * 2)
    signer.unsign(signer.sign(MARK))

    for thing in (options, options.plan, signer, storage):
        assert MARK not in shown(thing)


def test_the_lines_of_an_error_and_of_its_cause_stay_and_their_variables_do_not() -> None:
    def ask(held: str) -> None:
        try:
            raise LookupError(held[:4])
        except LookupError as error:
            raise ValueError(held[:4]) from error

    try:
        ask(MARK)
    except ValueError as error:
        forget_locals(error)
        errors = [error, error.__cause__ or error]

    frames = [frame for each in errors for frame, _ in traceback.walk_tb(each.__traceback__)]
    assert [frame.f_code.co_name for frame in frames][1:] == ["ask", "ask"]
    assert [frame.f_locals for frame in frames][1:] == [{}, {}]
