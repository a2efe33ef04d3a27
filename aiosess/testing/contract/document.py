"""The contract as a page of the reference, made from the cases."""

from __future__ import annotations

from collections.abc import Iterator

from aiosess.testing.contract.chapters import CHAPTERS, Chapter

__all__ = ["as_markdown"]

_BEGINNING = """\
<!-- Made by `python -m aiosess.testing.contract`: change the cases, not this page. -->

# The storage contract

A storage keeps opaque bytes under a session id for a time: five verbs, `create`, `load`, `replace`,
`touch` and `delete`, whose signatures are those of `aiosess.storages.Storage`. It inherits from
nothing. `Storage`, `Stored` and `Version` come from `aiosess.storages`, what it raises from
`aiosess.errors`. A ttl is in seconds, more than zero. Absence is `None` or `False`, never an
exception; where the back-end gives no answer, every verb raises `StorageUnavailable` with the
client's error as its cause.

A storage may have `load_and_touch` besides (`aiosess.storages.TouchingStorage`), which reads a
record and extends its life in one call; the sentences about it count only where it is there. It
may have `within(timeout)` (`aiosess.storages.PunctualStorage`), which returns the same storage with
a time limit of its own; aiosess watches the time of one that has not. It may have `load_afresh`
(`aiosess.storages.FreshStorage`), which reads a record on a connection that nobody else uses, where
the answer to a `load` was another session's record; one that has not is asked by `load` again. It
may have `node_of(session_id)` (`aiosess.storages.NodeStorage`), which says on which server a
record is, so that an outage is one of that server. And it may have `publish(notice)` and
`subscribe()` (`aiosess.storages.NotifyingStorage`), by which the processes of an application tell
each other at once that something happened to a session; without it, they look at each session
that is watched now and then, as they do anyway. A `StorageUnavailable` that the back-end said
itself, such as that it is full, is raised with `is_answer=True`: it may still do something else.

Each sentence below is a case in `aiosess.testing`, to be run against any storage. aiosess writes a
new payload with each `replace`, so that a version may be the payload itself, or a hash of it.

## Running it

Without a test framework; all misbehaviours are reported at once:

```python
import asyncio

from aiosess import MemoryStorage
from aiosess.testing import FakeClock, Harness, report, run_contract

clock = FakeClock()
harness = Harness(lambda: MemoryStorage(clock=clock), clock=clock)

results = asyncio.run(run_contract(harness))

print(report(results))
assert all(result.is_kept for result in results)
```

With pytest, one line makes one test of each case:

```python
from aiosess.testing.pytest import storage_contract

test_my_storage = storage_contract(harness)
```

In the place of a harness, `storage_contract("my_harness")` takes the name of a fixture that returns
one. Without a `clock`, the cases really wait: `Harness(MyStorage)`; for a back-end that counts in
whole seconds `Harness(MyStorage, unit=2)`. What the function given to `Harness` returns is entered
if it is an asynchronous context manager, and closed if it has `close()`.
"""


def as_markdown() -> str:
    """Return the page."""
    return "\n".join([_BEGINNING, *(line for chapter in CHAPTERS for line in _chapter(chapter))])


def _chapter(chapter: Chapter) -> Iterator[str]:
    yield f"## {chapter.title}"
    yield ""
    yield "| case | promise |"
    yield "| --- | --- |"
    for case in chapter.cases:
        yield f"| `{case.name}` | {case.sentence} |"
    yield ""
