"""What a handler holds: a mapping that knows what was read, and what is to become of it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager
from typing import Any, Final, Protocol, TypeAlias, TypeVar, overload

import aiohttp_session
from aiohttp import web

from aiosess.attributes import SessionCookie
from aiosess.errors import InvalidValue, SessionGone
from aiosess.events import Reason
from aiosess.records.format import RESERVED_KEYS
from aiosess.records.identity import complaint_of
from aiosess.records.merge import MISSING, SCALARS, freeze, is_container
from aiosess.records.state import Intent, Past, SessionState, Standing
from aiosess.records.typed import Reads, SessionKey
from aiosess.records.views import Views
from aiosess.request_key import RequestKey
from aiosess.timeouts import Duration, seconds

__all__ = ["SESSION", "End", "Session", "SessionIO", "Watch", "is_of", "state_of"]

T = TypeVar("T")
D = TypeVar("D")


End: TypeAlias = Callable[[Reason], object]
"""What is called, with the reason, when a session has ended."""


class Watch:
    """Says of a session that is watched why it ended: ``reason`` is ``None`` while it lives."""

    def __init__(self) -> None:
        self.reason: Reason | None = None


class SessionIO(Protocol):
    """What a session can have done to itself at once; the request's exchange does it."""

    async def save(self) -> bool:
        """Write now."""
        ...

    async def reload(self) -> None:
        """Read again."""
        ...

    async def touch(self) -> bool:
        """Extend the record's life now."""
        ...

    async def destroy(self) -> None:
        """Delete the record now."""
        ...

    async def change_id(self, intent: Intent) -> None:
        """Take a new id."""
        ...

    async def atomic(self, change: Callable[[Session], T]) -> T:
        """Apply a change to the newest data."""
        ...

    async def authenticated(self) -> None:
        """Take a new id, and note that the principal has proved who it is."""
        ...

    def now(self) -> float:
        """Return the Unix time."""
        ...

    def expires_at(self) -> float | None:
        """Return when the session ends if nothing happens any more."""
        ...

    def watched(self, end: End) -> AbstractContextManager[None]:
        """Return what, while entered, calls *end* once the session has ended."""
        ...

    def close_socket(self, ws: web.WebSocketResponse, reason: Reason) -> None:
        """Close *ws* for *reason*, in a task of its own."""
        ...

    async def bind(
        self, principal: str, *, label: str | None, labels: Mapping[str, str] | None
    ) -> None:
        """Take a new id, and belong to a principal."""
        ...

    async def unbind(self) -> None:
        """Take a new id, and belong to nobody."""
        ...

    def note_late(self) -> None:
        """Take note that the session is used when its response is made."""
        ...

    def declare(self, key: SessionKey[Any]) -> None:
        """Take note that *key* is used; OptionsError where its name has another type already."""
        ...

    def note_invalid(self, error: InvalidValue) -> None:
        """Take note that the default of a key stands for what is kept, and is not of its type."""
        ...


class Session(aiohttp_session.Session):
    """One browser's data on the server: a mutable mapping of JSON values under ``str`` keys.

    What is put in, and changed inside what is in, is saved when the handler is done; nothing
    needs to be called. The members of ``aiohttp_session.Session`` keep their meaning, but for
    ``created``, which stays what it was when the session began.

    A ``SessionKey`` in the place of a ``str`` gives a value its type, and takes what JSON lacks.

    The keys ``"cookie"`` and ``"__aiosess"`` belong to the record and cannot be used. After
    ``destroy()`` a change, and each verb, raises SessionGone.
    """

    _state: SessionState
    _io: SessionIO

    # What aiohttp_session's own middleware asks: whether the session is for its storage to save.
    _changed = False

    def __init__(self, state: SessionState, io: SessionIO) -> None:
        # Not super().__init__(): whatever it would set is said by the members below.
        # Past __setattr__, which looks at what users set.
        own = self.__dict__
        own["_state"] = state
        own["_io"] = io
        own["_mapping"] = state.data

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse with AttributeError what is no member: it would be lost with the request."""
        if not name.startswith("_") and not hasattr(type(self), name):
            raise AttributeError(
                f"session.{name} = ... would not be kept: write session[{name!r}] = ..."
            )
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"<Session new={self.new} keys={list(self._mapping)!r}>"

    # Error trackers look into mappings otherwise.
    __sentry_repr__ = __repr__

    @property
    def id(self) -> str:
        """The session id. It is secret: whoever has it signed is this browser."""
        return self._state.session_id

    @property
    def cookie(self) -> SessionCookie:
        """The cookie of this session; its attributes can be set for this session alone."""
        self._state.beyond_data()
        self._look_back()
        return self._state.cookie

    @property
    def new(self) -> bool:
        """Whether nothing is kept for this browser yet."""
        return self._state.is_new and self._state.intent not in {Intent.RENEW, Intent.ROTATE}

    @property
    def identity(self) -> str | None:
        """The session id, or ``None`` while the session is new (as in aiohttp-session)."""
        return None if self.new else self._state.session_id

    @property
    def created(self) -> int:
        """When the session began, in whole seconds of Unix time."""
        return int(self._state.created_at)

    @property
    def is_anonymous(self) -> bool:
        """Whether this empty session stands in for one that the storage cannot give now.

        Only where ``on_unavailable`` says ``"anonymous"``. What is put in is dropped with the
        response, and whatever would log somebody in or out raises StorageUnavailable.
        """
        return self._state.standing is Standing.ANONYMOUS

    @property
    def authenticated_at(self) -> float | None:
        """When somebody last logged in, as Unix time; ``None``: nobody is logged in.

        A new value under one of the keys in ``SessionOptions.renew_on`` is a login, and
        ``authenticated()`` counts as one. The absolute timeout counts from here.
        """
        return self._state.authenticated_at

    def is_fresh(self, within: Duration) -> bool:
        """Ask whether the last login, or ``authenticated()``, is at most *within* ago.

        *within* is seconds or a ``timedelta``, else OptionsError. False where nobody is logged in;
        when the session began does not count.
        """
        age, at = seconds(within, name="within"), self._state.authenticated_at
        return at is not None and self._io.now() - at <= age

    @property
    def expires_at(self) -> float | None:
        """When the session ends, at the earliest, if nobody comes any more, as Unix time.

        ``None`` where that is not known: of a new session, and of one that a storage of
        aiohttp-session keeps.
        """
        return self._io.expires_at()

    @property
    def max_age(self) -> int | None:
        """``session.cookie.max_age`` in whole seconds."""
        age = self._state.cookie.max_age
        return None if age is None else int(age)

    @max_age.setter
    def max_age(self, value: Duration | None) -> None:
        self.cookie.max_age = value

    def changed(self) -> None:
        """Have the session written even though nothing seems to have changed."""
        self._look_back()
        self._state.beyond_data()
        self._state.must_be_written = True

    def invalidate(self) -> None:
        """Forget all data; the record is deleted unless new data are put in."""
        self._look_back()
        self._state.beyond_data()
        for key in list(self._mapping):
            del self[key]
        self._state.empty()

    def set_new_identity(self, identity: str | None) -> None:
        """Choose the id of a new session; RuntimeError when it is not new.

        ValueError for one that no cookie carries: of more than 1,000 bytes, with a control
        character, or with a lone surrogate.
        """
        if not self.new:
            raise RuntimeError("Can't change identity for a session which is not new")
        if not isinstance(identity, str) or not identity:
            # Not the value, which may be an id all the same.
            given = "''" if identity == "" else type(identity).__name__
            raise TypeError(f"a session id must be a str that is not empty, not {given}")
        complaint = complaint_of(identity)
        if complaint is not None:
            raise ValueError(f"a session id cannot be a str {complaint}")
        self._state.beyond_data()
        self._state.session_id = identity

    def rollback(self) -> None:
        """Forget this request's changes: data, cookie and id are as they were read."""
        self._check_alive()
        self._state.rollback()

    async def save(self) -> bool:
        """Write now what was changed; a session without a record gets one.

        For before ``prepare()`` of a streamed response, where a failure can still be answered,
        and for inside long handlers. Return False when the record was destroyed or expired
        meanwhile: it is not brought back. Raise StorageUnavailable after all retries,
        SessionNotSent for a new session whose cookie can no longer be sent. Raise
        UnserializableValue or RecordTooLarge for what cannot be kept, and MergeConflict where
        ``merge`` says so or others were quicker too often.
        """
        self._check_alive()
        return await self._io.save()

    async def reload(self) -> None:
        """Read the record again; what this request changed before is forgotten.

        What another task of the request changes meanwhile is kept, and a dict or list that somebody
        holds stays the session's. Raise SessionGone when there is no record, StorageUnavailable
        after all retries.
        """
        self._check_alive()
        await self._io.reload()

    async def touch(self) -> bool:
        """Extend the record's life by its idle timeout, now.

        Return False when the record is gone. Nothing happens to a new session, and True is
        returned. Raise StorageUnavailable after all retries.
        """
        self._check_alive()
        return await self._io.touch()

    async def destroy(self) -> None:
        """Delete the record now and clear the cookie; the session cannot be used afterwards.

        That needs no room in the back-end. Nothing happens to one that was destroyed. Raise
        StorageUnavailable after all retries, StorageError where even deleting is refused, and
        SessionGone where somebody logged in meanwhile: the session is not over then.

        Where the task is cancelled, since the client has gone, the session ends all the same.
        """
        if self._state.past is not Past.DESTROYED:
            await self._io.destroy()
            self._mapping.clear()
            self._state.originals.clear()
            self._state.views = None
            self._state.past = Past.DESTROYED

    async def regenerate(self) -> None:
        """Start over: a new id, no data; the old record is deleted when the response is ready.

        Raise SessionNotSent when the new cookie can no longer be sent.
        """
        self._check_alive()
        await self._io.change_id(Intent.REGENERATE)

    async def renew_id(self) -> None:
        """Take a new id and keep the data: call it where rights change without a login.

        At a login ``authenticated()`` or ``bind()`` does that, and notes when it was.

        Those who hold the old id see what was there just before, and change nothing any more. That
        ends ``SessionOptions.renew_grace`` seconds after the new id was first used; where somebody
        was logged in, they get no new id by it either. Raise SessionNotSent when the new cookie can
        no longer be sent.
        """
        self._check_alive()
        await self._io.change_id(Intent.RENEW)

    async def rotate_id(self) -> None:
        """Take a new id now and then, and keep the data: whose session it is has not changed.

        The old id leads to the session for ``SessionOptions.renew_grace`` seconds, so that no
        request that is under way loses a change. Raise SessionNotSent when the new cookie can no
        longer be sent.
        """
        self._check_alive()
        await self._io.change_id(Intent.ROTATE)

    async def authenticated(self) -> None:
        """Take note that the principal has proved who it is: call it after a correct password.

        Also where it was logged in already, before something dangerous. The id is renewed as by
        ``renew_id()``, ``authenticated_at`` is now, and both timeouts begin again. A request that
        came with an old id goes on as a session of its own.

        Raise SessionNotSent when the new cookie can no longer be sent; there, TooManySessions where
        the principal may have no more, and StorageUnavailable after all retries.
        """
        self._check_alive()
        await self._io.authenticated()

    @property
    def principal(self) -> str | None:
        """Whom the session belongs to, as ``bind()`` was told; ``None``: nobody."""
        bond = self._state.bond
        return None if bond is None else bond.principal

    @property
    def handle(self) -> str | None:
        """What names the session to people, and is not its id; ``None`` while it is unbound.

        16 characters, which stay through every new id for as long as the principal is the same.
        """
        bond = self._state.bond
        return None if bond is None else bond.handle

    async def bind(
        self,
        principal: str,
        *,
        label: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Let the session belong to *principal*, 1 to 256 characters: call it at login.

        The id is renewed as by ``renew_id()``, and ``authenticated_at`` is now. *label* is what
        ``Principals.sessions_of()`` calls the session, *labels* are what
        ``Principals.revoke_label()`` ends it by: up to 8, such as ``{"oidc_sid": sid}``. Names and
        values are cut at 200 characters.

        Raise TypeError or ValueError for what is none of that, SessionError where the application
        has no ``Principals``, TooManySessions where the principal may have no more. Raise
        StorageUnavailable after all retries, SessionNotSent when the new cookie can no longer be
        sent.
        """
        self._check_alive()
        await self._io.bind(principal, label=label, labels=labels)

    async def unbind(self) -> None:
        """Let the session belong to nobody, and keep its data; the id is renewed.

        Nothing happens to one that belongs to nobody. Raise SessionNotSent when the new cookie can
        no longer be sent.
        """
        self._check_alive()
        await self._io.unbind()

    async def atomic(self, change: Callable[[Session], T]) -> T:
        """Apply ``change(session)`` to the newest data, write it now, return what it returned.

        *change* is a plain function and may be called several times, each time with the newest
        data. What else this handler has changed is kept, and not written yet. Raise TypeError
        for a coroutine function, SessionGone when the record is gone, MergeConflict when others
        were quicker too often, StorageUnavailable after all retries. On a new session *change* is
        applied here and saved at the end.
        """
        self._check_alive()
        return await self._io.atomic(change)

    @asynccontextmanager
    async def watch(self, ws: web.WebSocketResponse) -> AsyncGenerator[Watch]:
        """Close *ws* when the session ends: destroyed, revoked, expired, or somebody else's.

        Its code is 1008, and its message the words of the reason; 1013 where the storage was away
        until the session must have expired, 1001 where the application stops. Looking is no touch:
        an open socket keeps no session alive. A new id now and then closes nothing. Raise
        SessionError for a session that has no record yet, RuntimeError where *ws* is not prepared.
        """
        if not isinstance(ws, web.WebSocketResponse):  # pyright: ignore[reportUnnecessaryIsInstance] - not all are typed
            raise TypeError(
                f"watch({type(ws).__name__}): it closes a WebSocketResponse; for what else is "
                "open, reason = await session.ended()"
            )
        if not ws.prepared:
            raise RuntimeError("the socket is not open yet: await ws.prepare(request) first")
        self._check_alive()
        watch = Watch()

        def end(reason: Reason) -> None:
            watch.reason = reason
            self._io.close_socket(ws, reason)

        with self._io.watched(end):
            yield watch

    async def ended(self) -> Reason:
        """Return why the session ended, once it has; for streams and long handlers.

        It ends as it does for ``watch()``, may be awaited by many at once, and be cancelled. Raise
        SessionError for a session that has no record yet.
        """
        if self._state.past is Past.DESTROYED:
            return Reason.ENDED
        reason: asyncio.Future[Reason] = asyncio.get_running_loop().create_future()

        def end(why: Reason) -> None:
            # A task that waits may have been cancelled in the same moment.
            if not reason.done():
                reason.set_result(why)

        with self._io.watched(end):
            return await reason

    @overload
    def __getitem__(self, key: Reads[T]) -> T: ...

    @overload
    def __getitem__(self, key: str) -> Any: ...

    def __getitem__(self, key: Any) -> Any:
        try:
            value = self._mapping[key]
            # Most values are scalars, and one look tells.
            if value.__class__ not in SCALARS and is_container(value):
                return self._watched(key, value)
            return value
        except KeyError:
            # An error about the value itself is raised outside of this one.
            pass
        return self._beyond_mapping(key)

    @overload
    def get(self, key: Reads[T], /) -> T | None: ...

    @overload
    def get(self, key: SessionKey[T], default: T, /) -> T: ...

    @overload
    def get(self, key: Reads[T], default: D, /) -> T | D: ...

    @overload
    def get(self, key: str, /) -> Any | None: ...

    @overload
    def get(self, key: str, default: Any | D, /) -> Any | D: ...

    # Of the overloads there, two are the same where values are Any.
    def get(self, key: Any, default: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the value under *key*, or *default*; that of a ``SessionKey`` does not count."""
        try:
            value = self._mapping[key]
        except KeyError:
            return self[key] if key in self else default  # noqa: SIM401 - this is get() itself
        return value if value.__class__ in SCALARS else self[key]

    def _beyond_mapping(self, key: str | SessionKey[Any]) -> Any:
        """Return a value that does not stand under *key* in the mapping as it is now."""
        if isinstance(key, SessionKey):
            return self._typed(key)
        if key not in self:
            raise KeyError(key) from None
        return self[key]

    def _typed(self, key: SessionKey[Any]) -> Any:
        """Return the value of *key*, converted, which is looked at again at the end."""
        views, name = self._viewed(key), key.name
        value = views.held(name, self._mapping)
        if value is MISSING:
            if name in self._mapping:
                value = key.convert(self._mapping[name], self._io.note_invalid)
            elif key.has_default:
                value = key.make_default()
            else:
                raise _missing(
                    key,
                    "ask by session.get(key), which gives None then, put it in at the login, or "
                    "give the SessionKey a default",
                ) from None
            if key.is_fixed:
                return value
            views.hold(key, value, self._mapping)
        self._look_back()
        self._state.beyond_data()
        self._watch(name, self._mapping.get(name, MISSING))
        return value

    def _viewed(self, key: SessionKey[Any]) -> Views:
        """Return the session's typed values, among which is that of *key*."""
        views = self._state.views
        if views is None or views.keys.get(key.name) is not key:
            self._io.declare(key)
            views = self._state.viewed(key)
        return views

    def _watched(self, key: str, value: Any) -> Any:
        """Return the container *value* of *key*, which is looked at again at the end."""
        self._watch(key, value)
        if self._state.views is not None:
            self._state.views.held(key, self._mapping)
            value = self._mapping[key]
        return value

    def _watch(self, key: str, value: Any) -> None:
        if self._state.past is Past.CONCLUDED:
            self._io.note_late()
        if key not in self._state.originals:
            self._state.originals[key] = freeze(value)

    @overload
    def __setitem__(self, key: SessionKey[T], value: T) -> None: ...

    @overload
    def __setitem__(self, key: str, value: Any) -> None: ...

    def __setitem__(self, key: str | SessionKey[Any], value: Any) -> None:
        if self._state.past:
            self._look_back()
        if not isinstance(key, str):
            if isinstance(key, SessionKey):
                self._set_typed(key, value)
                return
            raise TypeError(f"session keys are str, not {key!r}: use {str(key)!r}")
        if key in RESERVED_KEYS:
            raise ValueError(f"session[{key!r}] belongs to the record: use another key")
        originals = self._state.originals
        if key in originals:
            if self._state.views is not None:
                self._state.views.drop(key)
        else:
            before = self._mapping.get(key, MISSING)
            originals[key] = before if before.__class__ in SCALARS else freeze(before)
        self._mapping[key] = value

    def _set_typed(self, key: SessionKey[T], value: T) -> None:
        views = self._viewed(key)
        plain = key.to_builtins(value)
        key.check(plain)
        self[key.name] = plain
        if not key.is_fixed:
            # Whoever holds it may go on to change it.
            self._state.beyond_data()
            views.hold(key, value, self._mapping)

    def __delitem__(self, key: str | SessionKey[Any]) -> None:
        name = key.name if isinstance(key, SessionKey) else key
        views = self._state.views
        is_held = views is not None and views.drop(name)
        if name in self._mapping:
            self._look_back()
            if name not in self._state.originals:
                self._state.originals[name] = freeze(self._mapping[name])
            del self._mapping[name]
        elif not is_held:
            raise _missing(key, "session.pop(key, None) removes it where it is there")

    @overload
    def pop(self, key: Reads[T], /) -> T: ...

    @overload
    def pop(self, key: SessionKey[T], default: T, /) -> T: ...

    @overload
    def pop(self, key: Reads[T], default: D, /) -> T | D: ...

    @overload
    def pop(self, key: str, /) -> Any: ...

    @overload
    def pop(self, key: str, default: Any | D, /) -> Any | D: ...

    # As with get().
    def pop(self, key: Any, default: Any = MISSING) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Remove *key* and return its value, or *default*; KeyError where there is neither."""
        if key in self:
            value = self[key]
            del self[key]
            return value
        if default is MISSING:
            raise _missing(key, "session.pop(key, None) gives None then")
        return default

    @overload
    def setdefault(self, key: str, default: None = None, /) -> Any | None: ...

    @overload
    def setdefault(self, key: str, default: Any, /) -> Any: ...

    @overload
    def setdefault(self, key: SessionKey[T], default: T, /) -> T: ...

    def setdefault(self, key: Any, default: Any = None) -> Any:
        """Return the value under *key*; where there is none, *default* is put there before."""
        if key in self:
            return self[key]
        self[key] = default
        return default

    def __contains__(self, key: object) -> bool:
        if self._state.views is not None:
            self._state.gather()
        return key in self._mapping or (isinstance(key, SessionKey) and key.name in self._mapping)

    def __iter__(self) -> Iterator[str]:
        self._gather()
        return super().__iter__()

    def __len__(self) -> int:
        self._gather()
        return super().__len__()

    @property
    def empty(self) -> bool:
        """Whether there are no data."""
        return not len(self)

    def _gather(self) -> None:
        """Have in the mapping what was changed inside typed values."""
        if self._state.views is not None:
            self._state.gather()

    def __copy__(self) -> dict[str, Any]:
        """Return the data alone: a session belongs to its request."""
        self._gather()
        return dict(self._mapping)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        """Return a copy of the data alone: a session belongs to its request."""
        self._gather()
        return copy.deepcopy(self._mapping, memo)

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        """Pickle the data alone: a session belongs to its request."""
        self._gather()
        return dict, (self._mapping,)

    def _look_back(self) -> None:
        """Raise SessionGone where the session was destroyed; have late changes looked at."""
        self._check_alive()
        if self._state.past is Past.CONCLUDED:
            self._io.note_late()

    def _check_alive(self) -> None:
        if self._state.past is Past.DESTROYED:
            raise SessionGone(
                "the session was destroyed: to go on with an empty one, call regenerate() "
                "in the place of destroy()"
            )


def _missing(key: str | SessionKey[Any], way_out: str) -> KeyError:
    """Return the error of a *key* without a value; of a SessionKey it says the *way_out*."""
    if not isinstance(key, SessionKey):
        return KeyError(key)
    name = _NameWithoutValue(key.name)
    name.way_out = way_out
    return KeyError(name)


class _NameWithoutValue(str):
    """The name of a key that has no value; a KeyError shows its repr()."""

    __slots__ = ("way_out",)

    way_out: str

    def __repr__(self) -> str:
        return f"{str(self)!r} has no value in this session: {self.way_out}"


class _SessionKey(RequestKey[Session]):
    """Says what to do in the KeyError of a request that holds no session."""

    __slots__ = ()

    def __repr__(self) -> str:
        return (
            "<aiosess.SESSION: this request holds no session, or none yet: "
            "session = await get_session(request) loads it>"
        )


SESSION: Final[RequestKey[Session]] = _SessionKey("aiosess.session", Session)
"""Where the request keeps its session once it is loaded; ``del request[SESSION]`` unsets it."""


def is_of(session: object, state: SessionState) -> bool:
    """Ask whether *session* is what was handed out of *state*."""
    return isinstance(session, Session) and state_of(session) is state


def state_of(session: Session) -> SessionState:
    """Return what *session* was handed out of."""
    mine: Any = session
    state: SessionState = mine._state  # noqa: SLF001 - in its own module
    return state
