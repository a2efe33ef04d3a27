"""No interleaving of logins, rotations, logouts and changes shows or changes what it must not."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.servers import MemcachedServer, RedisServer
from tests.storages.login_mutants import MUTANTS, Broken
from tests.storages.logins import LoginsOnMemcached, LoginsOnMemory, LoginsOnRedis
from tests.storages.model import SETTINGS

# A counter-example is made small before it is printed, which takes its time.
pytestmark = pytest.mark.timeout(600)


def test_logins_on_memory() -> None:
    run_state_machine_as_test(LoginsOnMemory, settings=SETTINGS)


@pytest.mark.asvs("7.2.4")
def test_logins_on_redis(redis_server: RedisServer) -> None:
    class OnThisRedis(LoginsOnRedis):
        url = redis_server.url

    run_state_machine_as_test(OnThisRedis, settings=settings(SETTINGS, max_examples=20))


def test_logins_on_memcached(memcached_server: MemcachedServer) -> None:
    class OnThisMemcached(LoginsOnMemcached):
        url = memcached_server.url

    run_state_machine_as_test(OnThisMemcached, settings=settings(SETTINGS, max_examples=20))


# The same each time; that something is found is enough.
UNTIL_FOUND = settings(
    SETTINGS,
    max_examples=1500,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    report_multiple_bugs=False,
)


@pytest.mark.parametrize("broken", MUTANTS, ids=str)
def test_what_is_forgotten_is_noticed(broken: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broken.place, broken.name, broken.made())

    with pytest.raises((AssertionError, ExceptionGroup)):
        run_state_machine_as_test(LoginsOnMemory, settings=UNTIL_FOUND)
