"""What a URL says, and where a server is: what stands between ``//`` and ``/``."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from aiosess.errors import OptionsError
from aiosess.text import is_text

__all__ = ["address", "is_number", "split"]

_MOST_PORTS: Final = 65535
# Python reads numbers of a few thousand digits only; none that makes sense has so many.
_NUMBER: Final = re.compile(r"[0-9]{1,9}")


def address(name: str, *, port: int) -> tuple[str, int]:
    """Return host and port of ``host:port``, ``host`` or ``[::1]:port``; *port* where none stands.

    OptionsError, which shows no password, when *name* is none of these.
    """
    shown = repr(name.rpartition("@")[2])
    host, colon, given = name.rpartition(":")
    if not colon or name.endswith("]"):
        host, given = name, str(port)
    is_bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if is_bracketed else host
    if not host or (":" in host and not is_bracketed):
        raise OptionsError(f"{shown} is not a node: write 'host:port' or '[::1]:port'")
    if not (is_number(given) and 0 < int(given) <= _MOST_PORTS):
        raise OptionsError(f"{shown} is not a node: its port is not from 1 to {_MOST_PORTS}")
    return host, int(given)


def is_number(said: str) -> bool:
    """Ask whether *said* is a whole number, zero or more, of up to nine digits."""
    return _NUMBER.fullmatch(said) is not None


def split(url: str) -> SplitResult:
    """Return the parts of *url*; OptionsError, which shows none of it, where it has none."""
    if not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance] - not all are typed
        raise OptionsError(f"the url is of type {type(url).__name__}, and must be a string")
    if not is_text(url):
        raise OptionsError("the url has half of a character (a lone surrogate)")
    try:
        return urlsplit(url)
    except ValueError:
        raise OptionsError("the url has '[' or ']' that are not those of an IPv6 address") from None
