"""How the values of a type look as JSON: what is merged inside, and what is one value."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias, cast

__all__ = ["ANYTHING", "ONE", "Array", "Shape", "TypeReader", "in_order"]

_Info: TypeAlias = Any
"""What ``msgspec.inspect`` says of a type."""


class Array(enum.Enum):
    """How an array in JSON is merged, by the type that it was."""

    QUEUE = enum.auto()
    """A list: both sides may add to it."""
    SET = enum.auto()
    """A set: by membership."""
    ONE = enum.auto()
    """A tuple: one value, as it stands."""


class Shape:
    """What the JSON of a type is made of; what a type does not say is merged as any JSON.

    - ``array``: how it is merged where it is an array.
    - ``items``: the shape of each item; ``places``: of the items of a tuple, one after the other.
    - ``is_one``: whether an object is one value, whatever is inside.
    - ``members``: the shapes of an object's members by name; ``others``: of those that have none.
    """

    __slots__ = ("array", "is_one", "items", "members", "others", "places")

    def __init__(self) -> None:
        self.array: Array = Array.QUEUE
        self.items: Shape = self
        self.places: tuple[Shape, ...] = ()
        self.is_one: bool = False
        self.members: dict[str, Shape] = {}
        self.others: Shape = self

    def member(self, name: str) -> Shape:
        """Return the shape of what an object has under *name*."""
        return self.members.get(name, self.others)

    def arranged(self, plain: Any) -> Any:
        """Return *plain* with each set in it sorted, so that it is the same in every process."""
        if self is ANYTHING:
            return plain
        if isinstance(plain, dict):
            content = cast("dict[str, Any]", plain)
            return {name: self.member(name).arranged(value) for name, value in content.items()}
        if not isinstance(plain, list | tuple):
            return plain
        items = cast("Sequence[Any]", plain)
        shapes = (*self.places, *[self.items] * (len(items) - len(self.places)))
        arranged = [shape.arranged(item) for shape, item in zip(shapes, items, strict=False)]
        return in_order(arranged) if self.array is Array.SET else arranged


ANYTHING: Final = Shape()
"""Any JSON: objects are merged member by member, arrays as queues."""

ONE: Final = Shape()
"""One value, whatever it is."""

ONE.is_one, ONE.array = True, Array.ONE


def in_order(items: list[Any]) -> list[Any]:
    """Return the members of a set in an order that hangs on them alone."""
    try:
        return sorted(items)
    except TypeError:
        return sorted(items, key=lambda item: json.dumps(item, sort_keys=True))


# By the names of what msgspec.inspect has, which grow with its versions.
_FIXED: Final = frozenset(
    {
        *("NoneType", "BoolType", "IntType", "FloatType", "StrType", "BytesType", "LiteralType"),
        *("DateTimeType", "DateType", "TimeType", "TimeDeltaType", "UUIDType", "DecimalType"),
        "EnumType",
    }
)
_FIXED_OUTSIDE: Final = frozenset(
    {"FrozenSetType", "NamedTupleType", "TupleType", "UnionType", "VarTupleType"}
)
_PLAIN: Final = frozenset({"NoneType", "BoolType", "IntType", "StrType", "LiteralType", "AnyType"})
_PLAIN_OUTSIDE: Final = frozenset({"ListType", "DictType", "TypedDictType", "UnionType"})
_SETS: Final = frozenset({"SetType", "FrozenSetType"})
_TUPLES: Final = frozenset({"TupleType", "VarTupleType", "NamedTupleType"})
_CLASSES: Final = frozenset({"StructType", "DataclassType", "TypedDictType"})
_UNKNOWN: Final = frozenset({"CustomType", "RawType", "ExtType", "MemoryViewType"})


class TypeReader:
    """Reads a type, once, by what ``msgspec.inspect`` says of it.

    *merged*: whether what has fields is merged field by field, and is not one value. Raise what
    ``msgspec.inspect.type_info`` does for a type that msgspec cannot do.

    - ``shape``: how its values look as JSON.
    - ``strange``: the types inside that msgspec does not know.
    """

    def __init__(self, kind: object, *, merged: bool) -> None:
        from msgspec.inspect import type_info  # noqa: PLC0415 - only who has typed values needs it

        self._info: _Info = type_info(kind)
        self._merged = merged
        self._shapes: dict[int, Shape] = {}
        self.strange: list[Any] = []
        self.has_sets: bool = False
        self.has_fields: bool = False
        self.shape: Shape = self._shape(self._info)

    @property
    def is_fixed(self) -> bool:
        """Whether a value of the type cannot be changed from inside."""
        return _is_all(self._info, _is_fixed, ())

    @property
    def is_plain(self) -> bool:
        """Whether its values are JSON as they are, and come back so."""
        return _is_all(self._info, _is_plain, ())

    def _shape(self, info: _Info) -> Shape:
        known = self._shapes.get(id(info))
        if known is not None:
            return known
        if _name(info) == "AnyType":
            return ANYTHING
        shape = self._shapes[id(info)] = Shape()
        shape.items = shape.others = ANYTHING
        each: tuple[_Info, ...] = info.types if _name(info) == "UnionType" else (info,)
        for part in each:
            self._add(shape, part)
        # Of several classes, one side may have put another in the place of the first.
        shape.is_one = shape.is_one or sum(_name(part) in _CLASSES for part in each) > 1
        return shape

    def _add(self, shape: Shape, info: _Info) -> None:
        """Say in *shape* what values of one type look like, which has not several."""
        name = _name(info)
        if name in _CLASSES and not getattr(info, "array_like", False):
            self.has_fields = True
            shape.is_one = not self._merged
            for field in info.fields:
                self._add_member(shape, field.encode_name, self._shape(field.type))
        elif name in _CLASSES or name in _TUPLES:
            shape.array = Array.ONE
            shape.items = self._shape(info.item_type) if name == "VarTupleType" else ANYTHING
            shape.places = tuple(map(self._shape, _places(info)))
        elif name in _SETS:
            self.has_sets = True
            shape.array, shape.items = Array.SET, self._shape(info.item_type)
        elif name in {"ListType", "CollectionType"}:
            shape.items = self._shape(info.item_type)
        elif name in {"DictType", "FrozenDictType"}:
            shape.others = self._shape(info.value_type)
        elif name in _UNKNOWN:
            self.strange.append(getattr(info, "cls", name))
            if not self._merged:
                shape.array, shape.is_one = Array.ONE, True

    @staticmethod
    def _add_member(shape: Shape, name: str, member: Shape) -> None:
        # Two classes of a union that give one name to different things.
        differs = shape.members.get(name, member) is not member
        shape.members[name] = ANYTHING if differs else member


def _name(info: _Info) -> str:
    return type(info).__name__


def _places(info: _Info) -> tuple[_Info, ...]:
    if _name(info) == "TupleType":
        return tuple(info.item_types)
    return tuple(field.type for field in getattr(info, "fields", ()))


def _parts(info: _Info) -> Iterator[_Info]:
    """Give the types that the values of a type are made of."""
    for one in ("item_type", "key_type", "value_type"):
        if hasattr(info, one):
            yield getattr(info, one)
    for several in ("types", "item_types"):
        yield from getattr(info, several, ())
    yield from (field.type for field in getattr(info, "fields", ()))


def _is_all(info: _Info, holds: Callable[[_Info], bool], above: tuple[int, ...]) -> bool:
    """Ask whether something *holds* for a type and all that its values are made of."""
    if id(info) in above:
        # A class that holds itself.
        return True
    return holds(info) and all(_is_all(part, holds, (*above, id(info))) for part in _parts(info))


def _is_fixed(info: _Info) -> bool:
    return _name(info) in _FIXED or _name(info) in _FIXED_OUTSIDE or _is_frozen(info)


def _is_frozen(info: _Info) -> bool:
    kind: Any = getattr(info, "cls", None)
    config = getattr(kind, "__struct_config__", None) or getattr(kind, "__dataclass_params__", None)
    return bool(getattr(config, "frozen", False))


def _is_plain(info: _Info) -> bool:
    if _name(info) == "DictType" and _name(info.key_type) not in {"StrType", "AnyType"}:
        return False
    return _name(info) in _PLAIN or _name(info) in _PLAIN_OUTSIDE
