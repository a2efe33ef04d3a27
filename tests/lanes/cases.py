"""Random cases: what an application does with some requests of one browser, as plain data.

A case is made from its seed alone, written as JSON, and read back as the same case.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal, TypeAlias, TypeVar

import msgspec

__all__ = ["VERBS", "Around", "Case", "End", "Options", "Request", "case_of", "smaller", "steps_of"]

T = TypeVar("T")

End = Literal[
    "response",
    "redirect",
    "error",
    "file",
    "unprepared stream",
    "stream",
    "stream, then redirect",
    "stream, then error",
    "stream, then response",
]
Came = Literal[
    "nothing",
    "ours",
    "signed by the old secret",
    "unknown",
    "badly signed",
    "badly signed, then ours",
    "unknown, then ours",
    "renewed a moment ago",
    "renewed long ago",
    "ended a moment ago",
    "by Express",
    "unreadable",
    "with attributes of its own",
    "very old",
    "copied from another id",
    "by a newer version",
    "by an older application",
    "by a newer application",
]
_Secure: TypeAlias = bool | Literal["auto"]

VERBS: Final = ("create", "load", "replace", "touch", "delete")


class Options(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the options say; a default here is the default there."""

    rolling: bool = False
    resave: bool = False
    save_uninitialized: bool = False
    absolute_timeout: float | None = None
    unset: Literal["keep", "destroy"] = "keep"
    retries: int | None = None
    on_unavailable: Literal["an error", "anonymous"] = "an error"
    touch_after: float | str = "5%"
    renew_grace: float = 10
    merge: Literal["mine", "theirs", "raise"] = "mine"
    load: Literal["lazy", "eager"] | None = None
    proxy: bool | None = None
    name: str = "sid"
    max_age: float | None = None
    secure: _Secure = "auto"
    path: str = "/"
    cookie: Literal["given", "by a function", "by a coroutine"] = "given"
    is_id_taken: bool = False
    max_record_size: int = 1_000_000
    version: int | None = None
    on_reuse: Literal["refuse", "end"] = "refuse"
    max_sessions: int = 0
    """Of a principal; where there is none, sessions belong to nobody."""


USUAL: Final = Options()


class Around(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A middleware: what it does before and after the handler that it is given."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    finds: bool = False
    """It takes the session that the request has already, and does not ask for one."""
    clones: bool = False
    replaces: bool = False


ALONE: Final = Around()


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request: what the handler does, how it ends, and who stands around it."""

    later: float = 0
    first_cookie_again: bool = False
    is_misnamed: bool = False
    """The cookie comes under a longer name, which ends as ours does."""
    steps: tuple[str, ...] = ()
    end: End = "response"
    late: tuple[str, ...] = ()
    afterwards: tuple[str, ...] = ()
    outer: Around = ALONE
    inner: Around = ALONE
    signal_before: tuple[str, ...] = ()
    signal_after: tuple[str, ...] = ()


class Case(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Some requests of one browser to one application, one after the other."""

    seed: int
    came: Came = "nothing"
    by: Literal["setup", "middleware"] = "setup"
    storage: Literal["plain", "punctual", "touching"] = "plain"
    is_slow: bool = False
    is_cancelling: bool = False
    is_encrypted: bool = False
    options: Options = USUAL
    requests: tuple[Request, ...] = ()

    def to_json(self) -> str:
        """Return the case as it can be given to ``python -m tests.lanes --case``."""
        return msgspec.json.encode(self).decode()

    @classmethod
    def from_json(cls, text: str) -> Case:
        """Return the case that ``to_json`` wrote. Raise ValueError where it is none."""
        return msgspec.json.decode(text, type=cls)


# What most handlers do, and what takes the shortcuts.
_USUAL: Final = (
    *("ask", "ask", "ask", "read a scalar", "read a list", "read what is missing", "read nested"),
    *("set", "set", "set", "set another", "set the same", "set and set back", "append"),
    *("append and pop", "change nested", "delete", "setdefault"),
)
_VERBS_OF_SESSION: Final = (
    *("save", "touch", "reload", "rollback", "renew the id", "regenerate", "destroy"),
    *("invalidate", "changed", "log in", "log out", "change atomically", "look atomically"),
    *("bind", "bind to another", "unbind"),
)
_ODD: Final = (
    *("set what cannot be kept", "delete all", "set a list", "choose the id", "ask who it is"),
    *("read the cookie", "max_age of its own", "no max_age of its own", "secure of its own"),
    *("path of its own", "expires of its own", "max_age by the session"),
    *("ask again", "ask by aiohttp_session", "new session by aiohttp_session"),
    *("ask twice at once", "save and touch at once", "save twice at once", "set beside a save"),
    *("renew and save at once", "read and touch at once", "cancel a save that waits"),
    *("save in the background", "save in the background", "save in the background"),
    *("save in the background", "set and save in the background"),
    *("unset", "unset", "unset", "unset for aiohttp_session", "set to None", "set to None"),
    *("clone the request", "clone the request"),
    *("vary", "keep out of caches"),
    *("11 seconds pass", "2 hours pass", "a day passes"),
)
_THEIRS: Final = (
    *("they write", "they write the same key", "they write the same value", "they append"),
    *("they delete", "they renew", "they renew", "they renew", "they end", "they garble"),
    *("they revoke", "they lose the index"),
)
_RACES: Final = tuple(f"{what} at {verb}" for verb in VERBS for what in _THEIRS)
_FAULTS: Final = (
    *(f"{what} {verb}" for verb in VERBS for what in ("fail", "fail twice", "lose", "hang up at")),
    *("fail replace", "lose replace", "hang up at replace", "hang up at replace"),
    *("mix up load", "mix up load"),
    "fail for good",
    "recover",
)


_UNUSUAL: Final[dict[str, Sequence[object]]] = {
    "rolling": [True],
    "resave": [True],
    "save_uninitialized": [True],
    "absolute_timeout": [90_000, 200_000],
    "unset": ["destroy"],
    "retries": [0, 1],
    "on_unavailable": ["anonymous"],
    "touch_after": [0, 60],
    "renew_grace": [0],
    "merge": ["theirs", "raise"],
    "load": ["lazy", "eager"],
    "proxy": [True, False],
    "name": ["__Secure-sid", "__Host-sid"],
    "max_age": [3600],
    "secure": [True, False],
    "path": ["/shop", "/elsewhere"],
    "cookie": ["by a function", "by a coroutine"],
    "is_id_taken": [True],
    "max_record_size": [100],
    "version": [3],
    "on_reuse": ["end"],
    "max_sessions": [1, 100, 100, 100],
}


_OTHERS: Final = (_VERBS_OF_SESSION, _ODD, _FAULTS, _THEIRS, _RACES)
_UNSET: Final = frozenset({"unset", "unset for aiohttp_session", "set to None"})
_SOME: Final = (0, 0, 1, 1, 2, 2, 3)


def steps_of(case: Case) -> Iterator[str]:
    """Yield each step of *case*, wherever it stands."""
    for request in case.requests:
        for around in (request.outer, request.inner):
            yield from (*around.before, *around.after)
        yield from (*request.steps, *request.late, *request.afterwards)
        yield from (*request.signal_before, *request.signal_after)


def case_of(seed: int) -> Case:
    """Return the case numbered *seed*, always the same one."""
    chance = _Chance(seed)
    requests = tuple(_request(chance) for _ in range(chance.one((2, 3, 3))))
    options = _options(chance, requests)
    return Case(
        seed=seed,
        came=chance.rarely(
            0.6,
            "ours",
            "nothing",
            "nothing",
            "signed by the old secret",
            "unknown",
            "badly signed",
            "badly signed, then ours",
            "unknown, then ours",
            "renewed a moment ago",
            "renewed a moment ago",
            "renewed long ago",
            "ended a moment ago",
            "by Express",
            "unreadable",
            "with attributes of its own",
            "with attributes of its own",
            "very old",
            "copied from another id",
            "by a newer version",
            "by an older application",
            "by a newer application",
        ),
        by=chance.rarely(0.3, "setup", "middleware"),
        storage=chance.rarely(0.5, "plain", "punctual", "touching", "touching"),
        is_slow=chance.happens(0.5),
        is_cancelling=chance.happens(0.5),
        is_encrypted=chance.happens(0.6 if options.secure is True else 0.08),
        options=options,
        requests=requests,
    )


class _Chance:
    """Chance, from a seed.

    Half of the cases are calm: so much is usual in them that what is not stands alone.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self._is_calm = self.happens(0.5)

    def happens(self, share: float) -> bool:
        return self._random.random() < share

    def one(self, choices: Sequence[T]) -> T:
        return self._random.choice(choices)

    def rarely(self, share: float, usual: T, *others: T) -> T:
        """Return *usual*, but one of *others* in this *share* of the cases, or fewer."""
        return self.one(others) if self.happens(share / 3 if self._is_calm else share) else usual

    def options(self, names: Sequence[str]) -> list[str]:
        """Return which of *names* are unusual: some, or the length of the cookie's life, or one."""
        if self._is_calm:
            return ["max_age"] if self.happens(0.3) else [self.one(names)]
        return [name for name in names if self.happens(0.15)]

    def steps(self, lengths: Sequence[int]) -> tuple[str, ...]:
        """Return steps: usual ones, and others here and there."""
        if not self._is_calm:
            return self.any_steps(lengths)
        length = self.one(lengths)
        steps = [self.one(_USUAL) for _ in range(length)]
        if self.happens(0.6):
            steps.insert(self._random.randint(0, length), self.one(self.one(_OTHERS)))
        return tuple(steps)

    def any_steps(self, lengths: Sequence[int]) -> tuple[str, ...]:
        """Return steps as they come, usual or not."""
        return tuple(
            self.one(_USUAL if self.happens(0.5) else self.one(_OTHERS))
            for _ in range(self.one(lengths))
        )


def _options(chance: _Chance, requests: Sequence[Request]) -> Options:
    if any(_UNSET.intersection(each.steps) for each in requests) and chance.happens(0.5):
        # By itself, the option means nothing.
        return Options(unset="destroy")
    if chance.happens(0.35):
        return USUAL
    names = chance.options(list(_UNUSUAL))
    chosen: dict[str, Any] = {name: chance.one(_UNUSUAL[name]) for name in names}
    if chosen.get("secure") is False or "path" in chosen:
        # Neither goes with a name that promises more.
        chosen.pop("name", None)
    return Options(**chosen)


def _request(chance: _Chance) -> Request:
    end: End = chance.rarely(
        0.35,
        "response",
        "redirect",
        "redirect",
        "error",
        "error",
        "error",
        "file",
        "unprepared stream",
        "stream",
        "stream",
        "stream",
        "stream, then redirect",
        "stream, then error",
        "stream, then response",
    )
    return Request(
        later=chance.one((0, 0, 0, 0, 5, 11, 7_200, 80_000)),
        first_cookie_again=chance.happens(0.2),
        is_misnamed=chance.happens(0.03),
        steps=chance.steps(_SOME),
        end=end,
        late=chance.steps((0, 1, 1, 2)) if end.startswith("stream") else (),
        afterwards=chance.any_steps((1, 2)) if chance.happens(0.06) else (),
        outer=_around(chance, 0.3),
        inner=_around(chance, 0.12),
        signal_before=chance.any_steps((1, 2)) if chance.happens(0.06) else (),
        signal_after=chance.any_steps((1, 2)) if chance.happens(0.08) else (),
    )


def _around(chance: _Chance, share: float) -> Around:
    if not chance.happens(share):
        return ALONE
    return Around(
        before=chance.any_steps((0, 0, 1)),
        after=chance.any_steps((0, 1, 1, 2)),
        finds=chance.happens(0.4),
        clones=chance.happens(0.25),
        replaces=chance.happens(0.45),
    )


def smaller(case: Case) -> Iterator[Case]:
    """Yield cases with one thing less than *case*: the way to the smallest that still differs."""
    yield from _smaller(case, keep={"seed"})


def _smaller(value: Any, keep: frozenset[str] | set[str] = frozenset()) -> Iterator[Any]:
    for field in msgspec.structs.fields(value):
        now = getattr(value, field.name)
        if field.name in keep:
            continue
        if isinstance(now, tuple):
            for index in range(len(now)):
                yield _with(value, field.name, now[:index] + now[index + 1 :])
        parts = now if isinstance(now, tuple) else (now,)
        if now != field.default and not isinstance(now, tuple):
            yield _with(value, field.name, field.default)
        for index, part in enumerate(parts):
            if not isinstance(part, msgspec.Struct):
                continue
            for less in _smaller(part):
                changed = (*parts[:index], less, *parts[index + 1 :])
                yield _with(value, field.name, changed if isinstance(now, tuple) else less)


def _with(value: Any, name: str, new: object) -> Any:
    return msgspec.structs.replace(value, **{name: new})
