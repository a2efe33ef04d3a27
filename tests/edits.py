"""Random data, and what handlers do to them, for the tests of merging."""

from __future__ import annotations

import copy
import json
from collections.abc import MutableMapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from hypothesis import strategies as st

__all__ = [
    "DATA",
    "OWN_EDITS",
    "SCRIPTS",
    "Edit",
    "Leaves",
    "OwnEdit",
    "Path",
    "edited",
    "items",
    "leaves",
    "own_edit",
]

Path: TypeAlias = tuple[str, ...]
Leaves: TypeAlias = dict[Path, str]

_KEYS = st.sampled_from("abc")
_SCALARS = st.sampled_from([None, True, 0, 1, 1.0, "", "1"])
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=10,
)
DATA = st.dictionaries(_KEYS, _VALUES, max_size=3)
"""What a session may hold; few keys, so that two requests often mean the same one."""


class Edit(NamedTuple):
    """One thing that a handler does: ``steps`` lead to the container that it does it to."""

    verb: str
    steps: Sequence[int]
    key: str


_VERBS = (
    *("set", "set a dict", "set a list", "log in"),
    *("append", "append", "append", "pop", "delete", "delete", "clear", "sort"),
)
SCRIPTS = st.lists(
    st.builds(Edit, st.sampled_from(_VERBS), st.lists(st.integers(0, 3), max_size=3), _KEYS),
    max_size=4,
)
"""What one request does, one edit after the other."""


class OwnEdit(NamedTuple):
    """A change of a key that is one side's own, inside dicts that are everybody's."""

    path: Sequence[str]
    name: str
    verb: str


OWN_EDITS = st.lists(
    st.builds(
        OwnEdit,
        st.lists(st.sampled_from(["in", "out"]), max_size=3),
        st.sampled_from("123"),
        st.sampled_from(["set", "set", "nest", "delete"]),
    ),
    max_size=5,
)


def own_edit(data: MutableMapping[str, Any], edit: OwnEdit, side: str, number: int) -> None:
    """Do *edit* to *data*, which may be a session."""
    container: Any = data
    for key in edit.path:
        container = container.setdefault(key, {})
    match edit.verb:
        case "set":
            container[f"{side}{edit.name}"] = number
        case "nest":
            container[f"{side}{edit.name}"] = {"in": [number]}
        case _:
            container.pop(f"{side}{edit.name}", None)


def edited(data: dict[str, Any], script: Sequence[Edit], side: str) -> dict[str, Any]:
    """Return a copy of *data* after *script*; what is put in bears the name of *side*."""
    changed = copy.deepcopy(data)
    for number, edit in enumerate(script):
        _apply(changed, edit, f"{side}{number}")
    return changed


def _apply(data: dict[str, Any], edit: Edit, token: str) -> None:
    if edit.verb == "log in":
        data["user"] = {"name": token}
        return
    container: Any = data
    for step in edit.steps:
        inner = [each for each in _inside(container) if isinstance(each, list | dict)]
        if not inner:
            break
        container = inner[step % len(inner)]
    if isinstance(container, list):
        _edit_list(container, edit, token)
    else:
        _edit_dict(container, edit, token)


def _inside(container: Any) -> list[Any]:
    return container if isinstance(container, list) else list(container.values())


def _edit_list(items: list[Any], edit: Edit, token: str) -> None:
    match edit.verb:
        case "append" | "set a dict" | "set a list":
            items.append(token)
        case "pop" | "delete" if items:
            items.pop(len(edit.steps) % len(items))
        case "clear":
            items.clear()
        case "set" if items:
            items[0] = token
        case _:
            pass


def _edit_dict(items: Any, edit: Edit, token: str) -> None:
    key = edit.key
    match edit.verb:
        case "set":
            items[key] = token
        case "set a dict":
            items[key] = {key: token}
        case "set a list":
            items[key] = [token]
        case "append" if isinstance(items.get(key, []), list):
            items.setdefault(key, [])
            items[key].append(token)
        case "pop" | "delete":
            items.pop(key, None)
        case "clear":
            items.clear()
        case "sort":
            for each in sorted(items):
                items[each] = items.pop(each)
        case _:
            pass


def leaves(value: object, path: Path = ()) -> Leaves:
    """Return what stands at each path that leads no deeper, as JSON; an empty dict has none."""
    if not isinstance(value, dict):
        return {path: json.dumps(value, sort_keys=True)}
    return {
        each: leaf
        for key, inner in value.items()
        for each, leaf in leaves(inner, (*path, key)).items()
    }


def items(leaf: str | None) -> list[str]:
    """Return the items of a leaf that is a list, as JSON; else none."""
    value = [] if leaf is None else json.loads(leaf)
    return [json.dumps(each, sort_keys=True) for each in value] if isinstance(value, list) else []
