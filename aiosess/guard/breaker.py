"""A back-end that is away: known after a few calls, asked by one at a time, told once.

Each node of a back-end has a circuit for whether it answers at all. It has another for each
operation that it refuses while it does others: a Redis that is full still reads. A circuit counts
the calls in a row that failed, and opens at so many. While it is open, calls fail at once; when its
pause is over, one call goes through to see whether the node is well again.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from msgspec import Struct

from aiosess.errors import OptionsError, StorageUnavailable
from aiosess.events import BETWEEN_LINES, Events, Reason
from aiosess.timeouts import Duration, seconds

__all__ = ["Breaker", "BreakerOptions", "Node", "NodeHealth"]

# A node in trouble that was not asked for so many seconds has lost its records to another.
_UNASKED: Final = 60.0
# A pause is longer or shorter by up to this share, so that processes do not probe in step.
_JITTER: Final = 0.2
# Seconds without a failure after which a trouble that opened no circuit is over.
_SETTLED: Final = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerOptions:
    """When calls to a node are given up at once, and how it is asked whether it is well again.

    - ``failures``: so many calls in a row that fail, each after all its retries.
    - ``pause``: seconds or a ``timedelta`` until one call goes through; doubled each time that
      fails, up to ``longest_pause``, and longer or shorter by up to a fifth.

    Raise OptionsError for what makes no sense.
    """

    failures: int = 5
    pause: Duration = 0.5
    longest_pause: Duration = 5.0

    def __post_init__(self) -> None:
        if not isinstance(self.failures, int) or isinstance(self.failures, bool):
            raise OptionsError(f"breaker failures={self.failures!r} must be a whole number")
        if self.failures < 1:
            raise OptionsError(f"breaker failures={self.failures!r} must be 1 or more")
        pause = seconds(self.pause, name="breaker pause")
        longest = seconds(self.longest_pause, name="breaker longest_pause")
        if longest < pause:
            raise OptionsError(
                f"breaker longest_pause={self.longest_pause!r} is shorter than "
                f"pause={self.pause!r}: raise the one or lower the other"
            )


class NodeHealth(Struct, frozen=True):
    """Whether a node of the back-end is well.

    - ``node``: where it is, as ``host:port``, or what the storage calls it.
    - ``operation``: the verb that it refuses; ``None``: whether it answers at all.
    - ``is_well``: whether the last call was answered.
    - ``since``: since when that is so, in Unix time.
    - ``reason``: why it is not well; ``None`` where it is.
    - ``retry_after``: the seconds until it is asked again; 0 where any call may ask it.
    """

    node: str
    operation: str | None
    is_well: bool
    since: float
    reason: str | None
    retry_after: float


class Breaker:
    """What is known of each node of a back-end.

    *options* are ``None`` where no circuit ever opens. *steady* gives the seconds of a clock that
    nobody sets, *clock* Unix time. Whoever sets ``on_change`` is told when all is well, and when
    not any more.
    """

    def __init__(
        self,
        options: BreakerOptions | None,
        events: Events,
        *,
        clock: Callable[[], float] = time.time,
        steady: Callable[[], float] = time.monotonic,
    ) -> None:
        self.events = events
        # None: no circuit opens.
        self.most_failures: int | None = None
        self.first_pause: float = 0.0
        self.longest_pause: float = 0.0
        if options is not None:
            self.most_failures = options.failures
            self.first_pause = seconds(options.pause, name="breaker pause")
            self.longest_pause = seconds(options.longest_pause, name="breaker longest_pause")
        self.clock = clock
        self.steady = steady
        self.nodes: dict[str, Node] = {}
        self.on_change: Callable[[bool], None] | None = None
        # When to look for nodes in trouble that nobody asks any more.
        self._look_at = math.inf

    def node(self, name: str) -> Node:
        """Return what is known of the node called *name*."""
        if self.steady() >= self._look_at:
            self._forget_unasked()
        node = self.nodes.get(name)
        if node is None:
            node = self.nodes[name] = Node(name, self)
        return node

    def slow(self, node: Node, operation: str, error: StorageUnavailable) -> None:
        """Take note that an act had no time left for *operation*, though *node* may be well."""
        error.node, error.operation = node.name, operation
        self.events.tell_now_and_then(Reason.TOO_SLOW, node=node.name)

    def changed(self) -> None:
        """Tell whether all nodes are well."""
        is_well = all(node.is_well for node in self.nodes.values())
        self._look_at = math.inf if is_well else self.steady() + _UNASKED
        if self.on_change is not None:
            self.on_change(is_well)

    def forget(self, node: Node) -> None:
        """Take note that *node* keeps no record any more: another has taken its place."""
        del self.nodes[node.name]
        self.events.tell(Reason.NODE_FORGOTTEN, node=node.name)
        self.changed()

    def _forget_unasked(self) -> None:
        self._look_at = self.steady() + _UNASKED
        for node in list(self.nodes.values()):
            if not node.is_well and node.asked_at + _UNASKED <= self.steady():
                self.forget(node)

    def health(self) -> tuple[NodeHealth, ...]:
        """Return how each node is that was asked so far, the circuits that are not well apart."""
        return tuple(each for node in self.nodes.values() for each in node.health())


class Node:
    """One node of the back-end; ``is_well`` while no circuit of it has trouble."""

    def __init__(self, name: str, breaker: Breaker) -> None:
        self.name = name
        self.is_well: bool = True
        self.asked_at: float = breaker.steady()
        self._breaker = breaker
        self._since = breaker.clock()
        self._answers = _Circuit(self, None, breaker)
        self._refuses: dict[str, _Circuit] = {}

    def enter(self, operation: str) -> tuple[_Circuit, ...]:
        """Let a call begin; return the open circuits for which it is the probe.

        Raise StorageUnavailable at once where the node is known to be away.
        """
        if self.is_well:
            return ()
        self.asked_at = self._breaker.steady()
        circuits = self._answers, self._refuses.get(operation)
        opened = tuple(each for each in circuits if each is not None and each.is_open)
        for each in opened:
            each.refuse_unless_due(operation)
        for each in opened:
            each.is_probed = True
        return opened

    def is_shut(self, operation: str) -> bool:
        """Ask whether a circuit for *operation* is open."""
        refusing = self._refuses.get(operation)
        return self._answers.is_open or (refusing is not None and refusing.is_open)

    def failed(
        self, operation: str, error: StorageUnavailable, probed: tuple[_Circuit, ...] = ()
    ) -> None:
        """Take note that a call failed, after all its retries, and say so in *error*."""
        if not error.is_answer:
            failing = self._answers
        else:
            self._answers.answered()
            failing = self._refuses.setdefault(operation, _Circuit(self, operation, self._breaker))
        self.given_up(probed)
        failing.failed(error, was_probe=failing in probed)
        error.node, error.operation = self.name, operation
        error.retry_after = failing.seconds_left()

    def answered(self, operation: str, probed: tuple[_Circuit, ...] = ()) -> None:
        """Take note that a call was answered."""
        if self.is_well:
            return
        self.given_up(probed)
        self._answers.answered()
        refusing = self._refuses.get(operation)
        if refusing is not None:
            refusing.answered()

    def given_up(self, probed: tuple[_Circuit, ...]) -> None:
        """Take note that a call told nothing of the node: another one may be the probe."""
        for each in probed:
            each.is_probed = False

    def due(self) -> tuple[str, ...]:
        """Return the operations by which it can be seen now whether the node is well again."""
        return tuple(
            each.operation or "load"
            for each in self._troubled()
            if not each.is_probed and not each.seconds_left()
        )

    def noted(self) -> None:
        """Take note that a circuit got into trouble, or out of it."""
        is_well = not self._troubled()
        if is_well is not self.is_well:
            self.asked_at = self._breaker.steady()
            self.is_well, self._since = is_well, self._breaker.clock()
            self._breaker.changed()

    def health(self) -> tuple[NodeHealth, ...]:
        """Return how the node is: one for each circuit that has trouble, or one."""
        if self.is_well:
            return (NodeHealth(self.name, None, True, self._since, None, 0.0),)
        return tuple(each.health() for each in self._troubled())

    def _troubled(self) -> list[_Circuit]:
        return [each for each in (self._answers, *self._refuses.values()) if each.has_trouble]


class _Circuit:
    """Whether one node answers, or whether it does one operation."""

    def __init__(self, node: Node, operation: str | None, breaker: Breaker) -> None:
        self.operation = operation
        self.has_trouble: bool = False
        self.is_open: bool = False
        self.is_probed: bool = False
        self._node = node
        self._breaker = breaker
        # Calls in a row that failed, and all that failed or were refused since the trouble began.
        self._failures = self._count = 0
        self._pause = 0.0
        self._due_at = self._failed_at = self._began_at = self._told_at = 0.0
        self._since = 0.0
        self._reason = ""

    def refuse_unless_due(self, operation: str) -> None:
        """Raise StorageUnavailable unless the next call may see whether the node is well."""
        if not self.is_probed and self._breaker.steady() >= self._due_at:
            return
        self._count += 1
        self._tell_that_it_goes_on()
        error = StorageUnavailable(
            f"{self._words()} since {self._passed():.1f} s, and is not asked now: {self._reason}",
            may_retry=False,
            is_answer=self.operation is not None,
        )
        error.node, error.operation = self._node.name, operation
        error.retry_after = self.seconds_left()
        raise error

    def failed(self, error: StorageUnavailable, *, was_probe: bool) -> None:
        """Count a call that failed; open where there were enough in a row."""
        breaker, now = self._breaker, self._breaker.steady()
        self._reason = str(error)
        self._failed_at = now
        self._failures += 1
        self._count += 1
        if not self.has_trouble:
            self._begin(now)
        else:
            self._tell_that_it_goes_on()
        if breaker.most_failures is None:
            return
        if was_probe:
            self._wait(now, min(2 * self._pause, breaker.longest_pause))
        elif not self.is_open and self._failures >= breaker.most_failures:
            self.is_open = True
            self._wait(now, breaker.first_pause)

    def answered(self) -> None:
        """Take note that the node does it again; what failed just now may fail again soon."""
        self._failures = 0
        if not self.has_trouble:
            return
        now = self._breaker.steady()
        if not self.is_open and now - self._failed_at < _SETTLED:
            return
        self.is_open = self.has_trouble = False
        words = self._words(is_over=True)
        self._breaker.events.tell(
            Reason.OUTAGE_ENDED, words=words, passed=self._passed(), count=self._count
        )
        self._node.noted()

    def seconds_left(self) -> float:
        """Return how long until the node is asked again; 0 where any call may ask it."""
        return max(0.0, self._due_at - self._breaker.steady()) if self.is_open else 0.0

    def health(self) -> NodeHealth:
        """Return how the node is in this."""
        left = self.seconds_left()
        return NodeHealth(self._node.name, self.operation, False, self._since, self._reason, left)

    def _begin(self, now: float) -> None:
        self.has_trouble = True
        self._count = 1
        self._began_at = self._told_at = now
        self._since = self._breaker.clock()
        self._breaker.events.tell(Reason.OUTAGE_BEGAN, words=self._words(), error=self._reason)
        self._node.noted()

    def _wait(self, now: float, pause: float) -> None:
        self._pause = pause
        share = random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311 - no secret hangs on it
        self._due_at = now + pause * share

    def _tell_that_it_goes_on(self) -> None:
        now = self._breaker.steady()
        if now - self._told_at >= BETWEEN_LINES:
            self._told_at = now
            self._breaker.events.tell(
                Reason.OUTAGE_GOES_ON,
                words=self._words(),
                passed=self._passed(),
                count=self._count,
                error=self._reason,
            )

    def _passed(self) -> float:
        return self._breaker.steady() - self._began_at

    def _words(self, *, is_over: bool = False) -> str:
        if self.operation is None:
            done = "answers again" if is_over else "does not answer"
        else:
            done = "takes a {} again" if is_over else "refuses to {}"
            done = done.format(self.operation)
        return f"the storage at {self._node.name} {done}"
