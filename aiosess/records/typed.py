"""The key of a value that has a type: what JSON lacks is converted on its way in and out."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Any, Final, Generic, Literal, TypeVar, overload

import msgspec

from aiosess.attributes import COOKIE_KEY, RESERVED_KEY
from aiosess.errors import InvalidValue, OptionsError, UnserializableValue
from aiosess.privacy import forget_locals
from aiosess.records.shapes import Shape, TypeReader

__all__ = ["Reads", "SessionKey"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class _Nothing(enum.Enum):
    NOTHING = "none given"


_NOTHING: Final = _Nothing.NOTHING


class Reads(Generic[T_co]):
    """What a value is read by: a key of a set is one of any collection, where it is only read."""

    __slots__ = ()


class SessionKey(Reads[T], Generic[T]):
    """A key whose values have a type, as ``aiohttp.web.AppKey``; OptionsError where it cannot be.

    ::

        CART = SessionKey("cart", dict[str, int], default_factory=dict)

        session[CART]["apple"] = 1

    In the record stands JSON, under *name*. msgspec converts what JSON lacks: datetime, UUID,
    Decimal, Enum, set, tuple, bytes, dataclasses, Structs, TypedDicts, classes of attrs. A change
    inside a value is noticed.

    - ``name``: the ``str`` under which the value is kept.
    - ``kind``: the type of its values.
    - ``default``: what ``session[key]`` gives where there is no value. It is kept once it was
      changed. One that can be changed takes ``default_factory``, a function that makes it.
    - ``on_invalid``: what a value that is kept, and does not convert, gives: ``"error"`` is
      InvalidValue, ``"default"`` the default.
    - ``merged``: merge what has fields field by field where two requests changed it. A dataclass,
      Struct, class of attrs or TypedDict is one value otherwise. A dict, list or set never is.
    - ``enc_hook``, ``dec_hook``: for types that msgspec does not know, as in msgspec. The one takes
      a value and returns plain data; the other takes the type and plain data, and returns a value.
    """

    __slots__ = (
        "__weakref__",
        "_dec_hook",
        "_default",
        "_enc_hook",
        "_has_sets",
        "_make_default",
        "is_fixed",
        "is_plain",
        "kind",
        "merged",
        "name",
        "on_invalid",
        "shape",
    )

    @overload
    def __init__(
        self,
        name: str,
        kind: type[T],
        *,
        default: T = ...,
        default_factory: Callable[[], T] | None = ...,
        on_invalid: Literal["error", "default"] = ...,
        merged: bool = ...,
        enc_hook: Callable[[Any], Any] | None = ...,
        dec_hook: Callable[[Any, Any], Any] | None = ...,
    ) -> None: ...

    @overload
    def __init__(
        self,
        name: str,
        kind: object,
        *,
        default: Any = ...,
        default_factory: Callable[[], Any] | None = ...,
        on_invalid: Literal["error", "default"] = ...,
        merged: bool = ...,
        enc_hook: Callable[[Any], Any] | None = ...,
        dec_hook: Callable[[Any, Any], Any] | None = ...,
    ) -> None: ...

    def __init__(
        self,
        name: str,
        kind: object,
        *,
        default: T | _Nothing = _NOTHING,
        default_factory: Callable[[], T] | None = None,
        on_invalid: Literal["error", "default"] = "error",
        merged: bool = False,
        enc_hook: Callable[[Any], Any] | None = None,
        dec_hook: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        self.name: str = _checked_name(name)
        self.kind: Any = kind
        self.on_invalid: Literal["error", "default"] = on_invalid
        self.merged: bool = merged
        self._enc_hook = enc_hook
        self._dec_hook = dec_hook
        self._default = default
        self._make_default = default_factory
        try:
            read = TypeReader(kind, merged=merged)
        except Exception as error:
            raise self._wrong(
                f"msgspec cannot do that ({error}): give a type such as str, dict[str, int], or "
                "a class"
            ) from error
        self.shape: Shape = read.shape
        self.is_fixed: bool = read.is_fixed
        """Whether a value cannot be changed from inside."""
        self.is_plain: bool = read.is_plain
        """Whether a value is kept as it is, and so is the same under its key and its name."""
        self._has_sets = read.has_sets
        self._check(read)

    def __repr__(self) -> str:
        return (
            f"<SessionKey {self.name!r} of {_shown(self.kind)}: session[key] takes it; in plain "
            f"data, and as JSON, write key.name or {self.name!r}>"
        )

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        """Ask whether both mean the same by the same name, whatever their defaults."""
        if not isinstance(other, SessionKey):
            return NotImplemented
        return (self.name, self.kind, self.merged) == (other.name, other.kind, other.merged)

    def __hash__(self) -> int:
        return hash((SessionKey, self.name))

    @property
    def has_default(self) -> bool:
        """Whether there is a default."""
        return self._make_default is not None or self._default is not _NOTHING

    def make_default(self) -> T:
        """Return the default; LookupError where there is none."""
        if self._make_default is not None:
            return self._make_default()
        if self._default is _Nothing.NOTHING:
            raise LookupError(f"{self!r} has no default")
        return self._default

    def to_builtins(self, value: T) -> Any:
        """Return *value* as plain data, in which sets are sorted lists; perhaps itself.

        Raise UnserializableValue where it cannot be.
        """
        if self.is_plain:
            return value
        try:
            plain = msgspec.to_builtins(value, str_keys=True, enc_hook=self._enc_hook)
        except Exception as error:  # noqa: BLE001 - whatever a hook raises
            # Error trackers send what is left in this frame.
            del value
            raise self._not_kept(error) from None
        return self.shape.arranged(plain) if self._has_sets else plain

    def convert(self, plain: Any, told: Callable[[InvalidValue], object] | None = None) -> T:
        """Return the value that *plain* data stand for; themselves where the type is plain.

        Where they do not convert, raise InvalidValue, or return the default, as ``on_invalid``
        says; *told* hears of the latter.
        """
        try:
            value = self._converted(plain)
        except Exception as error:  # whatever a hook or a __post_init__ raises
            del plain
            forget_locals(error)
            invalid = InvalidValue(self.name, _shown(self.kind), _reason(error))
            if self.on_invalid != "default":
                raise invalid from error
            if told is not None:
                told(invalid)
            return self.make_default()
        kept: T = plain if self.is_plain else value
        return kept

    def check(self, plain: Any) -> None:
        """Raise UnserializableValue where *plain* data could not be read again."""
        try:
            self._converted(plain)
        except Exception as error:  # noqa: BLE001 - whatever a hook raises
            del plain
            raise self._not_kept(error) from None

    def _converted(self, plain: Any) -> Any:
        return msgspec.convert(plain, self.kind, str_keys=True, dec_hook=self._dec_hook)

    def _check(self, read: TypeReader) -> None:
        strange = [_shown(each) for each in read.strange]
        if strange and (self._dec_hook is None or self._enc_hook is None):
            raise self._wrong(
                f"msgspec knows no {strange[0]}: give enc_hook=... and dec_hook=..., which turn it "
                "into plain data and back (typing.Any stands for any JSON)"
            )
        if self.merged and not (read.has_fields or strange):
            raise self._wrong(
                "merged=True has no effect on a type without fields: leave it out. A dict, list or "
                "set is merged anyway, SessionOptions(whole=[...]) says where it is not"
            )
        self._check_default()

    def _check_default(self) -> None:
        if self.on_invalid not in {"error", "default"}:
            raise self._wrong(f"on_invalid={self.on_invalid!r} must be 'error' or 'default'")
        if self._make_default is not None and self._default is not _NOTHING:
            raise self._wrong("give default or default_factory, not both")
        if not self.has_default:
            if self.on_invalid == "default":
                raise self._wrong("on_invalid='default' takes default=... or default_factory=...")
            return
        if self._make_default is not None and not callable(self._make_default):
            raise self._wrong(
                f"default_factory={self._make_default!r} is not callable: give a function without "
                "arguments, or default=..."
            )
        if self._default is not _NOTHING and not self.is_fixed:
            raise self._wrong(
                f"default={self._default!r} can be changed from inside, and would be that of all "
                "sessions: give default_factory=..., a function that makes one"
            )
        default = self.make_default()
        try:
            self.check(self.to_builtins(default))
        except UnserializableValue as error:
            raise self._wrong(f"the default {default!r} does not convert: {error}") from error

    def _wrong(self, why: str) -> OptionsError:
        return OptionsError(f"SessionKey({self.name!r}, {_shown(self.kind)}): {why}")

    def _not_kept(self, error: Exception) -> UnserializableValue:
        path = f"session[{self.name!r}]"
        kind = _shown(self.kind)
        return UnserializableValue(f"{path} cannot be kept as {kind}: {_reason(error)}", path=path)


def _reason(error: Exception) -> str:
    """Return what msgspec, a hook or a ``__post_init__`` says, without the value where we can."""
    said, at, where = str(error).partition(" - at `")
    for shown in ("Invalid enum value", "Invalid value"):
        if said.startswith(shown):
            said = shown
    return said + at + where


def _shown(kind: object) -> str:
    """Return how people write a type."""
    if isinstance(kind, str):
        return repr(kind)
    return kind.__qualname__ if isinstance(kind, type) else str(kind).replace("typing.", "")


def _checked_name(name: object) -> str:
    if not isinstance(name, str) or not name:
        raise OptionsError(f"SessionKey({name!r}, ...): its name must be a str that is not empty")
    if name in {COOKIE_KEY, RESERVED_KEY}:
        raise OptionsError(
            f"SessionKey({name!r}, ...): this name belongs to the record: use another"
        )
    return name
