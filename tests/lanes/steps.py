"""What a handler, a middleware or a signal can do with a session: the steps, by name."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeAlias, cast

import aiohttp_session
from aiohttp import hdrs, web
from multidict import CIMultiDict

from aiosess import SESSION, Session, find_session, get_session
from aiosess.records.indexes import key_of_principal
from aiosess.testing import FakeClock
from tests.lanes.backend import Backend, Records
from tests.lanes.cases import VERBS

__all__ = ["STEPS", "Scene", "Stage", "play", "told"]

Step: TypeAlias = "Callable[[Scene], Awaitable[object]]"


class Stage(Protocol):
    """What all that happens in one case has in common."""

    clock: FakeClock
    backend: Backend
    records: Records
    session_id: str
    """The id that the browser sent with this request."""

    def note(self, line: str) -> None:
        """Take note of what was seen."""
        ...

    def their_id(self) -> str:
        """Return a new id, as another process makes one."""
        ...

    async def revoke(self, principal: str) -> None:
        """End all sessions of *principal*, as another process does."""
        ...

    def begin(self, act: Coroutine[Any, Any, object]) -> None:
        """Let *act* happen beside the request, and note how it ended."""
        ...

    def hang_up(self) -> None:
        """Close the connection, as a browser does that waits no longer."""
        ...


class Scene:
    """One place in which an application has its hands on a request; *who* it is in the notes.

    One that *finds* takes the session that the request has already, and does not ask for one.
    """

    def __init__(
        self,
        stage: Stage,
        who: str,
        request: web.Request,
        headers: CIMultiDict[str],
        *,
        finds: bool = False,
    ) -> None:
        self.stage = stage
        self.who = who
        self.request = request
        self.headers = headers
        self._finds = finds
        self._session: Session | None = None

    async def session(self) -> Session:
        """Return the session, asked for once. Raise LookupError where there is none."""
        if self._session is None:
            request = self.request
            # Both ways to ask; where there is none, only one of them is an error.
            ask = get_session if self.who == "handler" else find_session
            self.hold(request.get(SESSION) if self._finds else await ask(request))
        if self._session is None:
            raise LookupError("no session")
        return self._session

    def hold(self, session: object) -> None:
        """Go on with *session*."""
        self._session = session if isinstance(session, Session) else None

    def seen(self) -> str:
        """Return what the session looks like, without asking it."""
        session = self._session
        # Not dict(session): a container that is handed out is looked at again at the end.
        if session is None:
            return ""
        whose = "" if session.principal is None else f" of {session.principal} {session.handle}"
        return f" {session.id} new={session.new}{whose} {session._mapping}"


async def play(scene: Scene, steps: Iterable[str], *, raises: bool = False) -> None:
    """Do *steps* in turn, and note what each returned or raised.

    One that *raises* lets HTTP errors through, as a handler does that does not look for them.
    """
    for name in steps:
        note = f"{scene.who}: {name}"
        try:
            result = await STEPS[name](scene)
        except Exception as error:
            scene.stage.note(f"{note}: {told(error)}{scene.seen()}")
            if raises and isinstance(error, web.HTTPException):
                raise
        except asyncio.CancelledError:
            scene.stage.note(f"{note}: cancelled")
            raise
        else:
            scene.stage.note(f"{note}: {_shown(result)}{scene.seen()}")


def told(error: BaseException) -> str:
    """Return the kind of *error* and its text."""
    return f"{type(error).__name__}({error})"


def _shown(result: object) -> str:
    if isinstance(result, Session):
        return "a session"
    return told(result) if isinstance(result, BaseException) else repr(result)


STEPS: Final[dict[str, Step]] = {}


def _step(name: str) -> Callable[[Step], Step]:
    def register(step: Step) -> Step:
        STEPS[name] = step
        return step

    return register


def _on_session(name: str, act: Callable[[Session], Any]) -> None:
    """Register a step that does *act*, and awaits what it returns where that can be awaited."""

    async def step(scene: Scene) -> object:
        result = act(await scene.session())
        return await result if isinstance(result, Coroutine) else result

    STEPS[name] = step


def _set(key: str, value: object) -> Callable[[Session], None]:
    return lambda session: session.__setitem__(key, value)


def _set_attribute(name: str, value: object) -> Callable[[Session], None]:
    return lambda session: setattr(session.cookie, name, value)


def _set_and_set_back(session: Session) -> None:
    before = session.get("n")
    session["n"] = "something else"
    session["n"] = before


def _append_and_pop(session: Session) -> None:
    cart = session.setdefault("cart", [])
    cart.append("z")
    cart.pop()


def _change_nested(session: Session) -> None:
    tags = session.setdefault("deep", {}).setdefault("tags", {})
    tags["count"] = tags.get("count", 0) + 1


def _count(session: Session) -> int:
    session["count"] = session.get("count", 0) + 1
    return int(session["count"])


# Data.
_on_session("ask", lambda _session: None)
_on_session("read a scalar", lambda session: session.get("n"))
_on_session("read a list", lambda session: list(session.get("cart", [])))
_on_session("read what is missing", lambda session: session["nothing"])
_on_session("read nested", lambda session: dict(session.get("deep", {})))
_on_session("set", lambda session: session.update(n=(session.get("n") or 0) + 1))
_on_session("set another", _set("other", "x"))
_on_session("set the same", lambda session: session.update(n=session.get("n")))
_on_session("set and set back", _set_and_set_back)
_on_session("set a list", lambda session: session.update(cart=["b"]))
_on_session("set what cannot be kept", _set("bad", {1, 2}))
_on_session("append", lambda session: session.setdefault("cart", []).append("b"))
_on_session("append and pop", _append_and_pop)
_on_session("change nested", _change_nested)
_on_session("delete", lambda session: session.pop("n", None))
_on_session("delete all", lambda session: session.clear())
_on_session("setdefault", lambda session: session.setdefault("n", 5))
_on_session("log in", _set("AIOHTTP_SECURITY", "me"))
_on_session("log out", _set("AIOHTTP_SECURITY", None))

# The session's own members.
_on_session("save", lambda session: session.save())
_on_session("touch", lambda session: session.touch())
_on_session("reload", lambda session: session.reload())
_on_session("rollback", lambda session: session.rollback())
_on_session("renew the id", lambda session: session.renew_id())
_on_session("regenerate", lambda session: session.regenerate())
_on_session("destroy", lambda session: session.destroy())
_on_session("invalidate", lambda session: session.invalidate())
_on_session("changed", lambda session: session.changed())
_on_session("change atomically", lambda session: session.atomic(_count))
_on_session("look atomically", lambda session: session.atomic(lambda newest: newest.get("n")))
_on_session("bind", lambda session: session.bind("me", label="phone"))
_on_session("bind to another", lambda session: session.bind("somebody else"))
_on_session("unbind", lambda session: session.unbind())
_on_session("choose the id", lambda session: session.set_new_identity("chosen"))
_on_session("ask who it is", lambda session: (session.identity, session.created, session.max_age))
_on_session("read the cookie", lambda session: (session.cookie.max_age, session.cookie.path))
_on_session("max_age of its own", _set_attribute("max_age", 1000))
_on_session("no max_age of its own", _set_attribute("max_age", None))
_on_session("secure of its own", _set_attribute("secure", value=True))
_on_session("path of its own", _set_attribute("path", "/shop"))
_on_session("expires of its own", _set_attribute("expires", datetime(2030, 1, 1, tzinfo=UTC)))
_on_session("max_age by the session", lambda session: setattr(session, "max_age", 500))


# The session, found in other ways.


@_step("ask again")
async def _ask_again(scene: Scene) -> object:
    before = await scene.session()
    after = await get_session(scene.request)
    scene.hold(after)
    return after is before


@_step("ask by aiohttp_session")
async def _ask_by_aiohttp_session(scene: Scene) -> object:
    session = await aiohttp_session.get_session(scene.request)
    scene.hold(session)
    return session


@_step("new session by aiohttp_session")
async def _new_session(scene: Scene) -> object:
    session = await aiohttp_session.new_session(scene.request)
    scene.hold(session)
    return session


@_step("unset")
async def _unset(scene: Scene) -> None:
    await scene.session()
    del scene.request[SESSION]


@_step("unset for aiohttp_session")
async def _unset_for_aiohttp_session(scene: Scene) -> None:
    await scene.session()
    del scene.request[aiohttp_session.SESSION_KEY]


@_step("set to None")
async def _set_to_none(scene: Scene) -> None:
    await scene.session()
    # As some who come from Express write it.
    scene.request[SESSION] = cast("Any", None)


@_step("clone the request")
async def _clone(scene: Scene) -> None:
    scene.request = scene.request.clone()


# Two tasks of one request.


async def _at_once(*tasks: Awaitable[object]) -> str:
    results = await asyncio.gather(*tasks, return_exceptions=True)
    return ", ".join(_shown(result) for result in results)


@_step("ask twice at once")
async def _ask_twice(scene: Scene) -> object:
    return await _at_once(get_session(scene.request), get_session(scene.request))


@_step("save and touch at once")
async def _save_and_touch(scene: Scene) -> object:
    session = await scene.session()
    return await _at_once(session.save(), session.touch())


@_step("save twice at once")
async def _save_twice(scene: Scene) -> object:
    session = await scene.session()
    return await _at_once(session.save(), session.save())


@_step("renew and save at once")
async def _renew_and_save(scene: Scene) -> object:
    session = await scene.session()
    return await _at_once(session.renew_id(), session.save())


@_step("read and touch at once")
async def _read_and_touch(scene: Scene) -> object:
    session = await scene.session()
    return await _at_once(get_session(scene.request), session.touch(), session.reload())


@_step("set beside a save")
async def _set_beside_a_save(scene: Scene) -> object:
    session = await scene.session()
    session["n"] = "before"

    async def meanwhile() -> None:
        await asyncio.sleep(0)
        session["n"] = "meanwhile"

    return await _at_once(session.save(), meanwhile())


@_step("save in the background")
async def _save_in_the_background(scene: Scene) -> None:
    session = await scene.session()
    scene.stage.begin(session.save())


@_step("set and save in the background")
async def _set_and_save_in_the_background(scene: Scene) -> None:
    session = await scene.session()
    session["n"] = "in the background"
    scene.stage.begin(session.save())


@_step("cancel a save that waits")
async def _cancel_a_save(scene: Scene) -> object:
    session = await scene.session()
    saves = [asyncio.ensure_future(session.save()) for _ in range(3)]
    await asyncio.sleep(0)
    saves[1].cancel()
    return await _at_once(*saves)


# The response, and the time.


@_step("vary")
async def _vary(scene: Scene) -> None:
    scene.headers[hdrs.VARY] = "Accept"


@_step("keep out of caches")
async def _keep_out_of_caches(scene: Scene) -> None:
    scene.headers[hdrs.CACHE_CONTROL] = "no-store"


def _passes(name: str, seconds: float) -> None:
    async def step(scene: Scene) -> None:
        scene.stage.clock.advance(seconds)

    STEPS[name] = step


_passes("11 seconds pass", 11)
_passes("2 hours pass", 7_200)
_passes("a day passes", 86_400)


# Other processes.


def _they(name: str, act: Callable[[Stage], Awaitable[None]]) -> None:
    async def step(scene: Scene) -> None:
        await act(scene.stage)

    STEPS[name] = step
    for verb in VERBS:
        _at(verb, name, act)


def _at(verb: str, name: str, act: Callable[[Stage], Awaitable[None]]) -> None:
    """Register a step that lets *act* happen just before the next call of *verb*."""

    async def step(scene: Scene) -> None:
        scene.stage.backend.at[verb] = functools.partial(act, scene.stage)

    STEPS[f"{name} at {verb}"] = step


def _they_change(name: str, change: Callable[[dict[str, Any]], object]) -> None:
    _they(name, lambda stage: stage.records.change(stage.session_id, change))


_they_change("they write", lambda data: data.update(theirs=data.get("theirs", 0) + 1))
_they_change("they write the same key", lambda data: data.update(n=100))
_they_change("they write the same value", lambda data: data.update(n=2))
_they_change("they append", lambda data: data.setdefault("cart", []).append("t"))
_they("they delete", lambda stage: stage.records.delete(stage.session_id))
_they("they renew", lambda stage: stage.records.renew(stage.session_id, stage.their_id()))
_they("they end", lambda stage: stage.records.lead(stage.session_id, "", 0))
_they("they revoke", lambda stage: stage.revoke("me"))
_they("they lose the index", lambda stage: stage.records.delete(key_of_principal("me")))
_they("they garble", lambda stage: stage.records.put(stage.session_id, b"garbled"))


# Faults.


def _fails(name: str, *verbs: str, times: int | None, is_lost: bool = False) -> None:
    async def step(scene: Scene) -> None:
        scene.stage.backend.faulty.fail(verbs=verbs, times=times, lose_answer=is_lost)

    STEPS[name] = step


async def _hang_up(stage: Stage) -> None:
    stage.hang_up()


for _verb in VERBS:
    _fails(f"fail {_verb}", _verb, times=1)
    _fails(f"fail twice {_verb}", _verb, times=2)
    _fails(f"lose {_verb}", _verb, times=1, is_lost=True)
    _at(_verb, "hang up", _hang_up)
_fails("fail for good", *VERBS, times=None)


@_step("mix up load")
async def _mix_up_load(scene: Scene) -> None:
    scene.stage.backend.is_mixing_up = True


@_step("recover")
async def _recover(scene: Scene) -> None:
    scene.stage.backend.faulty.recover()
