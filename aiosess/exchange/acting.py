"""What is done to the record: what the session asks for at once, and what its end means."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from aiohttp import web
from msgspec.structs import replace

from aiosess.errors import (
    AiosessError,
    SessionError,
    SessionGone,
    SessionNotSent,
    StorageError,
    StorageUnavailable,
)
from aiosess.events import Reason
from aiosess.exchange.holding import Holding
from aiosess.exchange.watching import close_socket
from aiosess.records.bonding import Bonds, new_handle
from aiosess.records.bonds import Bond, check_principal, checked_labels, cut
from aiosess.records.decide import (
    Action,
    Reply,
    Rules,
    authentication,
    decide,
    decide_reply,
    is_login,
    is_proof,
    is_somebody,
)
from aiosess.records.state import Intent, SessionState, Standing
from aiosess.session import End, Session
from aiosess.transports.cookie import way_to_tls

__all__ = ["USE_SETUP", "Acting"]

T = TypeVar("T")

_OUTCOMES: Final = {
    Action.CREATE: Reason.CREATED,
    Action.REPLACE: Reason.REPLACED,
    Action.TOUCH: Reason.TOUCHED,
    Action.RENEW: Reason.RENEWED,
    Action.DELETE: Reason.DELETED,
}

_NO_PRINCIPALS: Final = (
    "session.bind() needs Principals: from aiosess.principals import Principals, then "
    "principals = Principals(options) before aiosess.setup(app, options); a storage of "
    "aiohttp-session can have none"
)

USE_SETUP: Final = "install sessions with aiosess.setup(app, options)"
"""The way out where it was too late for a cookie."""


class Acting(Holding):
    """Does to the record what the session asks for, and takes note of what the client must hear."""

    due: Reply = Reply.LEAVE
    """What the client is to be told."""
    is_saved: bool = False
    """Whether the handler saved the session itself."""
    outcome: Reason = Reason.UNCHANGED
    """What became of the session."""
    handler_knows: bool = False
    """Whether save() told the handler that the storage does not answer, and so lets it answer."""

    async def save(self) -> bool:
        """Write what was changed; False when the record is gone."""
        try:
            is_kept = await self.act(self._save, self._opened())
        except StorageUnavailable:
            self.handler_knows = True
            raise
        self.handler_knows = False
        return is_kept

    async def _save(self, state: SessionState) -> bool:
        self._check_not_anonymous(state)
        if not state.is_gone:
            await self._act(state, self.manager.rules.at_once(), has_left=self.has_left)
            self.is_saved = True
        # What is still new was not kept, since its cookie is withheld.
        return not state.is_gone and not state.is_new and state.standing is not Standing.FORMER

    async def reload(self) -> None:
        """Read the record again."""
        state = self._opened()
        self._check_not_anonymous(state)
        # What is changed while other tasks have their turn is to be kept.
        seen = state.seen()

        async def reloaded(held: SessionState) -> None:
            await self.repository.reload(held, seen)

        await self.act(self._unless_gone, reloaded, state)

    async def _unless_gone(
        self, act: Callable[[SessionState], Coroutine[Any, Any, T]], state: SessionState
    ) -> T:
        """Return what *act* returns; where it finds that the record went, the client is told."""
        try:
            return await act(state)
        except SessionGone:
            if state.is_gone:
                self._drop_changes()
            raise

    async def touch(self) -> bool:
        """Extend the record's life; False when it is gone."""
        return await self.act(self._touch, self._opened())

    async def _touch(self, state: SessionState) -> bool:
        if state.is_new or state.is_gone or state.standing is Standing.FORMER:
            return not state.is_gone and state.standing is not Standing.FORMER
        self._check_can_be_told(Action.TOUCH, state)
        is_kept = await self.repository.touch(state)
        self.outcome = Reason.TOUCHED
        if not is_kept:
            self._drop_changes()
        # What is left from before a change of rights is not what lives on.
        return is_kept and not state.is_overtaken

    async def destroy(self) -> None:
        """Delete the record now, and the cookie with the response.

        Where the task is cancelled meanwhile, the session ends all the same.
        """
        state = self._opened()
        try:
            await self.act(self._destroy, state)
        except asyncio.CancelledError:
            self.manager.finish(self._finish_end(state.apart()))
            raise

    async def _finish_end(self, state: SessionState) -> None:
        try:
            await self.act(self.repository.delete, state)
        except AiosessError as error:
            self._say(Reason.NOT_ENDED, error=repr(error))

    async def _destroy(self, state: SessionState) -> None:
        self._check_not_anonymous(state)
        self._check_can_be_told(Action.DELETE, state)
        await self._end(state)
        state.intent = Intent.DESTROY
        self.outcome = Reason.DELETED
        if self.came is not None or self.due is not Reply.LEAVE:
            self.due = Reply.CLEAR

    async def change_id(self, intent: Intent) -> None:
        """Take a new id, with the data (RENEW) or without (REGENERATE)."""
        await self.act(self._change_id, self._opened(), intent)

    async def _change_id(
        self, state: SessionState, intent: Intent, *, proved: str | None = None
    ) -> None:
        """Take a new id; *proved* is who has just proved who it is, empty for whoever it was."""
        self._check_not_anonymous(state)
        if self.has_left:
            raise SessionNotSent(
                "the id cannot change any more, the headers have left: change it earlier"
                f"{self._or_setup(', or ')}"
            )
        if intent is not Intent.REGENERATE and not self.repository.can_renew(state):
            if state.is_new and state.intent is Intent.EMPTY:
                # There is nothing to delete, and what comes now is to be kept.
                state.intent = Intent.KEEP
            return
        if state.standing is not Standing.LIVE:
            await self._go_alone(state, intent, proved)
            return
        await self.repository.move(state, self._new_id)
        if intent is Intent.REGENERATE:
            state.clear(self.repository.now())
        state.intent = intent
        state.is_renewal_due = False

    async def _go_alone(self, state: SessionState, intent: Intent, proved: str | None) -> None:
        """Part from a session to which the client came by an old id, perhaps as a stranger."""
        is_known = self._is_known(state)
        if intent is Intent.ROTATE or (intent is Intent.RENEW and is_known and proved is None):
            # The one who has the new id renews it: who only has the old one is to lose it.
            return
        is_same = proved == "" or (state.bond is not None and state.bond.principal == proved)
        state.fork_to(await self._new_id(), self.repository.now(), is_whole=is_known and is_same)
        if intent is Intent.REGENERATE:
            state.clear(self.repository.now())

    def _is_known(self, state: SessionState) -> bool:
        """Ask whether it is known who is logged in, and this request is no login by its data."""
        keys = self.manager.plan.renew_on
        has_any = any(is_somebody(state.data.get(key)) for key in keys)
        return (state.kept_bond is not None or has_any) and not is_proof(state, keys)

    async def authenticated(self) -> None:
        """Take a new id, and note that the principal has proved who it is."""
        await self.act(self._authenticated, self._opened())

    async def _authenticated(self, state: SessionState) -> None:
        bond, bonds = state.bond, self.repository.bonds
        await self._change_id(state, Intent.RENEW, proved="")
        state.authenticated_at = self.repository.now()
        state.must_be_written = True
        if bond is not None and state.bond is None and bonds is not None:
            # The session that lives on has the handle; this one is another of the same principal.
            again = self._new_bond(bond.principal, bond.label, bond.labels)
            await self._enter(state, bonds, again)

    def now(self) -> float:
        """Return the Unix time."""
        return self.repository.now()

    def expires_at(self) -> float | None:
        """Return when the session ends if nothing happens any more; ``None``: that is not known."""
        if self.state is None or self.is_passive:
            # Nobody knows how long ago the last activity was.
            return None
        return self.repository.expires_at(self.state)

    async def bind(
        self, principal: str, *, label: str | None, labels: Mapping[str, str] | None
    ) -> None:
        """Take a new id, and belong to *principal*; see ``Session.bind``."""
        bonds = self.repository.bonds
        if bonds is None:
            raise SessionError(_NO_PRINCIPALS)
        bond = self._new_bond(check_principal(principal), label, labels)
        await self.act(self._bind, self._opened(), bonds, bond)

    def _new_bond(
        self, principal: str, label: str | None = None, labels: Mapping[str, str] | None = None
    ) -> Bond:
        """Return what binds a session to *principal*, by a login with this request."""
        return Bond(
            new_handle(),
            principal,
            bound=0,
            label=cut(label, "label"),
            address=cut(self.request.remote, "address"),
            agent=cut(self.request.headers.get("User-Agent"), "agent"),
            labels=checked_labels(labels),
        )

    async def _bind(self, state: SessionState, bonds: Bonds, bond: Bond) -> None:
        await self._change_id(state, Intent.RENEW, proved=bond.principal)
        before, state.authenticated_at = state.authenticated_at, self.repository.now()
        try:
            await self._enter(state, bonds, bond)
        except AiosessError:
            state.authenticated_at = before
            raise
        state.must_be_written = True

    async def _enter(self, state: SessionState, bonds: Bonds, bond: Bond) -> None:
        """Bind *state* by *bond*; the index of the principal says so before the record does."""
        if state.bond is not None and state.bond.principal == bond.principal:
            bond = replace(bond, handle=state.bond.handle)
        await bonds.enter(state, bond)
        self._say(Reason.BOUND)

    async def unbind(self) -> None:
        """Take a new id, and belong to nobody."""
        await self.act(self._unbind, self._opened())

    async def _unbind(self, state: SessionState) -> None:
        if state.bond is None:
            return
        await self._change_id(state, Intent.RENEW)
        self._say(Reason.UNBOUND)
        await self.withdraw(state)
        state.bond = state.authenticated_at = None
        state.must_be_written = True

    async def withdraw(self, state: SessionState) -> None:
        """Let the indexes forget bonds of *state* that are not to be kept after all."""
        if self.repository.bonds is not None:
            await self.repository.bonds.withdraw(state)

    async def atomic(self, change: Callable[[Session], T]) -> T:
        """Apply *change* to the newest data, and write it."""
        if inspect.iscoroutinefunction(change):
            raise TypeError(f"atomic({change!r}): give a plain function, it may be called again")
        return await self.act(self._atomic, self._opened(), change)

    async def _atomic(self, state: SessionState, change: Callable[[Session], T]) -> T:
        if state.previous is not None:
            await self._save(state)

        async def changed(held: SessionState) -> T:
            return await self.repository.atomic(held, lambda newest: self._apply(change, newest))

        before = state.version
        result = await self._unless_gone(changed, state)
        if state.version is not before:
            self.outcome = Reason.REPLACED
            is_live = state.standing is Standing.LIVE
            if is_live and not self.has_left and state.cookie.is_persistent:
                self.due = Reply.SEND.after(self.due)
        return result

    def _apply(self, change: Callable[[Session], T], state: SessionState) -> T:
        result = change(self.session_of(state))
        if inspect.iscoroutine(result):
            result.close()
            raise TypeError(f"atomic({change!r}) returned a coroutine: give a plain function")
        return result

    @contextmanager
    def watched(self, end: End) -> Generator[None]:
        """While entered, call *end* once the session has ended; SessionError without a record."""
        state, watcher = self._opened(), self.manager.watcher
        self._check_not_anonymous(state)
        if watcher is None:
            raise SessionError(
                "a storage of aiohttp-session cannot be asked for a session by itself, so that its "
                "end is not noticed: use a storage of aiosess"
            )
        if state.is_new:
            raise SessionError(
                "a session that is watched needs a record, and this one has none yet under its id: "
                f"await session.save() first{self._or_setup(', and ')}"
            )
        with watcher.watched(state, end, self._request):
            yield

    def close_socket(self, ws: web.WebSocketResponse, reason: Reason) -> None:
        """Close *ws* for *reason*, in a task of its own, which nobody cancels with the request."""
        request = self._request()
        transport = None if request is None else request.transport
        self.manager.finish(close_socket(ws, reason, transport))

    # The end: decide, and act.

    async def _act(self, state: SessionState, rules: Rules, *, has_left: bool) -> None:
        """Decide, do to the record what was decided, and take note of what the client must hear."""
        if state.standing is Standing.ANONYMOUS:
            self._drop_anonymous(state)
            return
        is_authentication = await self._note_authentication(state, has_left=has_left)
        if state.standing is Standing.FORMER:
            self._drop_former(state)
            return
        await self._decide_and_do(state, rules, has_left=has_left)
        if is_authentication:
            # A logout may leave the id, and what is open belongs to those who were there before.
            self.repository.tell(state.session_id)

    async def _decide_and_do(self, state: SessionState, rules: Rules, *, has_left: bool) -> None:
        """Do to the record what the end of the session means; a new id may be due."""
        await self._rotate_if_due(state, has_left=has_left)
        is_resigned = self.came is not None and not self.came.is_current
        end = self.repository.ending(state, is_resigned=is_resigned, is_saved=self.is_saved)
        if self.is_passive:
            end = end.passive()
        action = decide(end, rules)
        is_cookie_changed = state.cookie.own != state.original_own
        if action in {Action.CREATE, Action.RENEW} and self._withholds(state):
            if not state.is_still_to_end:
                self.outcome = Reason.WITHHELD
                return
            # There is no new session; the one before is over all the same.
            action = Action.DELETE
        if action is Action.CREATE and not self.transport.is_for_host(self.request, state):
            self.manager.events.tell_first(
                Reason.OUTSIDE_DOMAIN,
                request=self.request,
                name=self.manager.options.name,
                domain=state.cookie.domain,
                host=self.request.url.host,
            )
        if has_left and self.transport.is_told_of(action, state):
            raise SessionNotSent(
                "the session changed when the headers had left, so that its cookie cannot be sent: "
                f"await session.save() before prepare(){self._or_setup(', and ')}"
            )
        self.outcome = _OUTCOMES.get(action, self.outcome)
        # A cookie that is sent again must not put an id back that was renewed meanwhile.
        if not await self._do(action, state, is_cookie_due=rules.rolling or is_resigned):
            self._drop_changes()
            return
        if action is Action.RENEW and state.is_overtaken:
            # Somebody logged in while the id was to be rotated: the browser may know that cookie.
            self.outcome = Reason.DROPPED
            return
        self.due = decide_reply(
            action,
            end,
            rules,
            # Attributes that the handler set count only once the browser has them.
            is_persistent=is_cookie_changed or state.cookie.is_persistent,
            is_alias=state.standing is not Standing.LIVE,
        ).after(self.due)

    async def _do(self, action: Action, state: SessionState, *, is_cookie_due: bool) -> bool:
        """Do *action* to the record; False where the record went meanwhile."""
        match action:
            case Action.NOTHING:
                return True
            case Action.CREATE | Action.RENEW:
                return await self._keep_under_new_id(state)
            case Action.REPLACE if state.must_be_written and not state.is_changed:
                return await self._if_possible(self.repository.replace(state))
            case Action.REPLACE:
                return await self.repository.replace(state)
            case Action.TOUCH:
                return await self._if_possible(
                    self.repository.touch(state, is_renewal_told=is_cookie_due)
                )
            case Action.DELETE:
                await self._delete(state)
                return True

    async def _if_possible(self, act: Coroutine[Any, Any, bool]) -> bool:
        """Do what the handler did not ask for: that it fails is no reason to refuse the request."""
        try:
            return await act
        except StorageUnavailable as error:
            self._say(Reason.NOT_TOUCHED, error=error)
        except StorageError as error:
            self._say(Reason.TOUCH_REFUSED, error=error)
        self.outcome = Reason.UNCHANGED
        return True

    async def _keep_under_new_id(self, state: SessionState) -> bool:
        is_kept = True
        if state.intent is Intent.RENEW and state.previous is not None:
            is_kept = await self.repository.renew(state, state.previous)
        elif state.intent is Intent.ROTATE and state.previous is not None:
            is_kept = await self.repository.rotate(state, state.previous)
        else:
            await self.repository.create(state)
            is_kept = not state.is_gone
        state.intent = Intent.KEEP
        return is_kept

    async def _end(self, state: SessionState) -> None:
        bond = self.bond
        await self.repository.delete(state)
        self.bond_until_end = bond

    async def _delete(self, state: SessionState) -> None:
        await self._end(state)
        if self.has_left:
            # No other session can begin in this response.
            state.is_gone = True
        elif state.intent is Intent.EMPTY:
            # An id whose record was deleted is never used again.
            state.session_id = await self._new_id()
            state.intent = Intent.KEEP

    async def _note_authentication(self, state: SessionState, *, has_left: bool) -> bool:
        """Return whether there is a login or a logout to take note of.

        A login gets a new id while the client can be told.
        """
        keys = self.manager.plan.renew_on
        is_new_id_due = is_login(state, keys)
        is_login_now = authentication(state, keys)
        if is_login_now is None and state.intent is Intent.EMPTY:
            # What says who is logged in may have been put in again, as it was.
            is_login_now = any(is_somebody(state.data.get(key)) for key in keys) or None
            state.must_be_written |= bool(is_login_now)
        if is_login_now is None:
            return False
        if is_new_id_due and has_left:
            self._say(Reason.LOGIN_IN_STREAM)
        elif is_new_id_due:
            await self._change_id(state, Intent.RENEW)
        if not is_login_now:
            state.authenticated_at = None
        elif state.authenticated_at is None or is_proof(state, keys):
            state.authenticated_at = self.repository.now()
        state.is_renewal_due = False
        await self._bind_by_key(state)
        return True

    async def _bind_by_key(self, state: SessionState) -> None:
        """Bind *state* to whom its data say is logged in, or to nobody; bind() has precedence."""
        bonds = self.repository.bonds
        if bonds is None or (state.bond is not None and state.is_bond_changed):
            return
        keys = self.manager.plan.renew_on_in_order
        key = next((key for key in keys if is_somebody(state.data.get(key))), None)
        who = None if key is None else state.data[key]
        if isinstance(who, int) and not isinstance(who, bool):
            who = str(who)
        if who is None and state.bond is not None:
            self._say(Reason.UNBOUND)
            state.bond = None
        elif who is not None and (state.bond is None or state.bond.principal != who):
            if not isinstance(who, str):
                if state.bond is not None and not is_proof(state, keys):
                    # A change inside, such as a new role of whoever was bound at login.
                    return
                raise SessionError(
                    f"session[{key!r}] is in renew_on, and a {type(who).__name__} names no "
                    "principal: put a str or an int there, or call session.bind() at login"
                )
            await self._enter(state, bonds, self._new_bond(check_principal(who)))

    def _drop_former(self, state: SessionState) -> None:
        """Drop what was done through the id from before a change of rights."""
        if state.intent is Intent.DESTROY and not state.is_stored:
            # destroy() has ended the session that lives on.
            return
        if state.may_be_modified and (state.intent is not Intent.KEEP or state.is_modified):
            self._say(Reason.FORMER_CHANGED)
            self.outcome = Reason.DROPPED
        state.rollback()

    def _drop_anonymous(self, state: SessionState) -> None:
        """Drop what was put in where the storage is away; StorageUnavailable for a login."""
        is_login_now = authentication(state, self.manager.plan.renew_on)
        if is_login_now is not None or state.intent is not Intent.KEEP:
            self._check_not_anonymous(state)
        if state.is_modified:
            self.outcome = Reason.DROPPED
        state.rollback()

    def _check_not_anonymous(self, state: SessionState) -> None:
        """Raise StorageUnavailable where *state* only stands in for what the storage has."""
        if state.standing is Standing.ANONYMOUS and isinstance(self.absent, StorageUnavailable):
            raise self.absent.again() from self.absent

    async def _rotate_if_due(self, state: SessionState, *, has_left: bool) -> None:
        """Take a new id now and then, where the options say so and the client can be told."""
        every = self.manager.plan.renew_every
        if (
            every is None
            or has_left
            or self.is_passive
            or state.intent is not Intent.KEEP
            or state.is_new
        ):
            return
        if self.repository.now() >= (state.renewed_at or state.created_at) + every:
            await self._change_id(state, Intent.ROTATE)

    def _drop_changes(self) -> None:
        self._say(Reason.SESSION_ENDED)
        self.outcome = Reason.DROPPED
        self.due = Reply.CLEAR

    def _withholds(self, state: SessionState) -> bool:
        """Return whether the client would refuse the cookie, and tell why, once."""
        reason = self.transport.withheld_because(state, is_secure=self.is_secure)
        if reason is None:
            return False
        request = self._request()
        options = self.manager.options
        way_out = way_to_tls(request, proxy=options.proxy)
        self.manager.events.tell_once(reason, request=request, name=options.name, way_out=way_out)
        return True

    def _or_setup(self, link: str) -> str:
        """Return, behind *link*, that setup() is a way out; nothing where it is in use."""
        return "" if self.manager.is_told_of_headers else link + USE_SETUP

    def _check_can_be_told(self, action: Action, state: SessionState) -> None:
        if self.has_left and self.transport.is_told_of(action, state):
            raise SessionNotSent(
                "the headers have left, so that the cookie cannot be sent which this takes: "
                f"do it before prepare(){self._or_setup(', and ')}"
            )
