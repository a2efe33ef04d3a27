"""The typed values of a session that somebody holds, and may change from inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Container, Mapping
from typing import Any, Final

import msgspec

from aiosess.errors import InvalidValue, UnserializableValue
from aiosess.privacy import private
from aiosess.records.changes import Values
from aiosess.records.format import check_value
from aiosess.records.merge import MISSING, Data, Original, freeze
from aiosess.records.shapes import Shape
from aiosess.records.typed import SessionKey

__all__ = ["Views"]


@private("key")
class View(msgspec.Struct):
    """A typed value that was handed out, or set.

    - ``seen``: its plain data when they were looked at last, frozen.
    - ``kept``: what stood under its name in the data then, frozen.
    """

    key: SessionKey[Any]
    value: Any
    seen: Original
    kept: Original


class Views:
    """What is known of one session's values by their ``SessionKey`` s.

    What somebody changed inside a value comes into the data by ``put_into()``. A value that is
    plain stands there itself.
    """

    def __init__(self, values: Values) -> None:
        self._values = values
        self._views: dict[str, View] = {}
        self.keys: dict[str, SessionKey[Any]] = {}
        """The keys that were used, by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the values that somebody holds."""
        return tuple(self._views)

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """How each value looks that was asked for by a key."""
        return {name: key.shape for name, key in self.keys.items()}

    def hold(self, key: SessionKey[Any], value: Any, data: Data) -> None:
        """Look at *value*, which was handed out or set, from here on."""
        seen = _frozen(key.to_builtins(value))
        self._views[key.name] = View(key, value, seen, _frozen(data.get(key.name, MISSING)))

    def held(self, name: str, data: Data) -> Any:
        """Return the value that somebody holds, with what it has now in *data*; else MISSING."""
        view = self._views.get(name)
        if view is None:
            return MISSING
        if view.value is not data.get(name, MISSING):
            self._put(name, view, data)
        return view.value if name in self._views else MISSING

    def drop(self, name: str) -> bool:
        """Look at a value no more; False where nobody holds one."""
        return self._views.pop(name, None) is not None

    def keep(self, names: Container[str]) -> None:
        """Look no more at values whose names are not among *names*."""
        self._views = {name: view for name, view in self._views.items() if name in names}

    def changed(self, data: Data) -> Data:
        """Return, by name, the plain data of each value that was changed inside.

        Raise UnserializableValue for one that cannot be kept.
        """
        plain = {name: self._changed(name, view, data) for name, view in self._views.items()}
        return {name: value for name, value in plain.items() if value is not MISSING}

    def put_into(self, data: Data) -> None:
        """Put into *data* what was changed inside. Raise UnserializableValue as changed() does."""
        for name, view in list(self._views.items()):
            self._put(name, view, data)

    def follow(self, data: Data) -> None:
        """Let each value become what stands in *data* now, where that is something else.

        A value that cannot be changed so is dropped, and made anew for those who ask.
        """
        for name, view in list(self._views.items()):
            if _frozen(data.get(name, MISSING)) == view.kept:
                continue
            del self._views[name]
            if _become(view, data.get(name, MISSING)) is view.value:
                self.hold(view.key, view.value, data)

    def _put(self, name: str, view: View, data: Data) -> None:
        plain = self._changed(name, view, data)
        if plain is not MISSING:
            # Whoever holds the container under the name goes on with it.
            held = {name: data[name]} if name in data else {}
            self._values.fill(held, {name: plain})
            data[name] = held[name]
            view.seen = view.kept = freeze(plain)
        elif _frozen(data.get(name, MISSING)) != view.kept:
            # Changed by its name: made anew for those who ask.
            del self._views[name]

    def _changed(self, name: str, view: View, data: Data) -> Any:
        """Return the plain data of a value that was changed inside; MISSING: it was not."""
        path = f"session[{name!r}]"
        plain = view.key.to_builtins(view.value)
        try:
            check_value(plain, path)
        except UnserializableValue as error:
            # Error trackers send what is left in this frame and in those below.
            del plain, data
            raise error.with_traceback(None) from None
        now = freeze(plain)
        if now.__class__ is view.seen.__class__ and now == view.seen:
            return MISSING
        view.key.check(plain)
        there = data.get(name, MISSING)
        if there is not view.value and _frozen(there) not in (view.kept, now):
            del plain, data, there
            raise UnserializableValue(
                f"{path} was changed inside the value of {view.key!r}, and by its name as well: "
                "change it in one of these ways",
                path=path,
            )
        return plain


_UNLIKE: Final = object()


def _frozen(value: Any) -> Original:
    """Return *value* as freeze() does; what cannot be kept is like nothing."""
    try:
        return freeze(value)
    except (TypeError, ValueError, RecursionError):
        return _UNLIKE


def _become(view: View, plain: Any) -> Any:
    """Return the value of *plain* data: the one of *view*, where it can be changed to that."""
    if plain is view.value or plain is MISSING:
        return plain
    try:
        return _refilled(view.value, view.key.convert(plain))
    except InvalidValue:
        return MISSING


def _refilled(held: Any, wanted: Any) -> Any:
    """Return *held* with the content of *wanted*, or *wanted* where it cannot be changed so."""
    kind = held.__class__
    if kind is not wanted.__class__:
        return wanted
    if kind is dict:
        _refill_dict(held, wanted)
    elif kind is list:
        _refill_list(held, wanted)
    elif kind is set:
        _refill_set(held, wanted)
    elif kind is bytearray:
        held[:] = wanted
    else:
        return _with_fields(held, wanted)
    return held


def _refill_dict(held: dict[Any, Any], wanted: dict[Any, Any]) -> None:
    content = {key: _refilled(held.get(key), value) for key, value in wanted.items()}
    held.clear()
    held.update(content)


def _refill_list(held: list[Any], wanted: list[Any]) -> None:
    is_as_long = len(held) == len(wanted)
    held[:] = [
        _refilled(held[index], value) if is_as_long else value for index, value in enumerate(wanted)
    ]


def _refill_set(held: set[Any], wanted: set[Any]) -> None:
    held.clear()
    held.update(wanted)


def _with_fields(held: Any, wanted: Any) -> Any:
    fields = _fields(held)
    try:
        for name in fields:
            setattr(held, name, _refilled(getattr(held, name), getattr(wanted, name)))
    except (AttributeError, TypeError, ValueError):
        # What is frozen, or looks at what it is given.
        return wanted
    return held if fields else wanted


def _fields(value: Any) -> tuple[str, ...]:
    """Return the names of the fields of a Struct, a dataclass or an object of attrs."""
    kind: Any = value.__class__
    if issubclass(kind, msgspec.Struct):
        return tuple(kind.__struct_fields__)
    if dataclasses.is_dataclass(kind):
        return tuple(field.name for field in dataclasses.fields(kind))
    return tuple(each.name for each in getattr(kind, "__attrs_attrs__", ()))
