"""Session ids, signed and verified, in the format of express-session."""

from __future__ import annotations

import binascii
import hmac
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeAlias
from urllib.parse import quote, unquote

from aiosess.errors import OptionsError
from aiosess.events import Events, Reason
from aiosess.text import is_text
from aiosess.transports.base import SignedId

__all__ = ["Secret", "Signer"]

Secret: TypeAlias = str | bytes

_PREFIX: Final = "s:"
_SIGNATURE_LENGTH: Final = 43
_STRONG: Final = 32
# So many cookies, one for each session that was here last.
_MOST_VERIFIED: Final = 4096
# What JavaScript's encodeURIComponent leaves alone besides letters, digits and "_.-~".
_UNQUOTED: Final = "!~*'()"


class Signer:
    """Signs session ids with the first secret and accepts those signed with any.

    A signed id is ``s:<id>.<base64 of HMAC-SHA256(secret, id), without =>``, percent-encoded:
    the format of express-session. Raise OptionsError for no secret or one that is not text.
    """

    def __init__(self, secrets: Secret | Sequence[Secret]) -> None:
        given: Sequence[Secret] = [secrets] if isinstance(secrets, str | bytes) else secrets
        if not isinstance(given, Sequence) or not given:
            raise OptionsError("secret must be a str, bytes or a list of them with at least one")
        keys = [_key(secret) for secret in given]
        self._macs = [hmac.new(key, digestmod="sha256") for key in keys]
        self.verified: dict[str, SignedId] = {}
        """Values of cookies whose signature held, in the spelling that sign() gives them."""
        if any(len(key) < _STRONG for key in keys):
            Events().tell(Reason.WEAK_SECRET, least=_STRONG)

    def sign(self, session_id: str) -> str:
        """Return the cookie's value for *session_id*."""
        signature = _signature(self._macs[0], session_id.encode()).decode()
        return quote(f"{_PREFIX}{session_id}.{signature}", safe=_UNQUOTED)

    def unsign(self, value: str) -> SignedId | None:
        """Return the id in the cookie's *value*, or ``None`` when no secret made its signature."""
        session_id, _, signature = _unquoted(value).rpartition(".")
        if not session_id.startswith(_PREFIX) or len(signature) != _SIGNATURE_LENGTH:
            return None
        session_id = session_id[len(_PREFIX) :]
        try:
            message, given = session_id.encode(), signature.encode("ascii")
        except UnicodeEncodeError:
            return None
        if not session_id:
            return None
        for index, mac in enumerate(self._macs):
            if hmac.compare_digest(_signature(mac, message), given):
                return SignedId(session_id, is_current=index == 0)
        return None

    def held(self, values: Iterable[str]) -> Iterator[SignedId]:
        """Give the id in each of *values* whose signature holds, checked when it is asked for.

        Signatures that held are remembered, for some thousand cookies.
        """
        for value in values:
            signed = self.verified.get(value) or self._verify(value)
            if signed is not None:
                yield signed

    def _verify(self, value: str) -> SignedId | None:
        signed = self.unsign(value)
        # Not what does not hold, nor other spellings of what does: nobody can push others out.
        if signed is not None and signed.is_current and value == self.sign(signed.session_id):
            if len(self.verified) >= _MOST_VERIFIED:
                self.verified.clear()
            self.verified[value] = signed
        return signed


def _key(secret: object) -> bytes:
    if isinstance(secret, str) and not is_text(secret):
        raise OptionsError("secret has half of a character (a lone surrogate): give text or bytes")
    key = secret.encode() if isinstance(secret, str) else secret
    if not isinstance(key, bytes):
        raise OptionsError(f"a secret must be str or bytes, not {type(secret).__name__}")
    if not key:
        raise OptionsError("secret is empty: give at least 32 random bytes")
    return key


def _signature(mac: hmac.HMAC, message: bytes) -> bytes:
    mac = mac.copy()
    mac.update(message)
    return binascii.b2a_base64(mac.digest(), newline=False).rstrip(b"=")


def _unquoted(value: str) -> str:
    # Our own cookies have these three escapes and no others.
    plain = value.replace("%3A", ":").replace("%2B", "+").replace("%2F", "/")
    if "%" not in plain:
        return plain
    try:
        return unquote(value, errors="strict")
    except UnicodeDecodeError:
        return ""
