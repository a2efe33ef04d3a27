"""The lines on principals: many logins at once, and revocations that race with all else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tests.proof.lines import Browser, in_rounds

LOGINS: Final = 200
MOST: Final = 5


async def logins_at_once(browser: Browser, principal: str) -> tuple[int, int]:
    """Many logins of one principal at once: how many sessions are alive, how many are listed."""
    logins = await asyncio.gather(*(browser.get(f"/bind?as={principal}") for _ in range(LOGINS)))
    alive = [await _handle(browser, cookie) for _, _, cookie in logins if cookie]
    _, listed, _ = await browser.get(f"/devices?as={principal}")
    return sum(handle is not None for handle in alive), len(listed)


async def revocations(browser: Browser, rounds: int) -> tuple[int, int]:
    """Revoke in each round, while others use, rotate and renew sessions, log in and log out.

    Return how many sessions lived on that had begun before, and how many that are alive are not
    listed.
    """
    numbers = iter(range(rounds))
    outcomes = await in_rounds(rounds, lambda: _revocation(browser, f"p{next(numbers)}"))
    lived_on, unlisted = zip(*outcomes, strict=True)
    return sum(lived_on), sum(unlisted)


class _Device:
    """A browser that has a session, and uses it."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self.cookie: str | None = None
        self.past: list[str] = []

    async def get(self, path: str) -> Any:
        _, answer, cookie = await self._browser.get(path, self.cookie)
        if cookie is not None:
            # What the browser had is tried as well, in case it still opens something.
            self.past += [self.cookie] if self.cookie else []
            self.cookie = cookie or None
        return answer

    async def use(self, principal: str) -> None:
        """Do what browsers do, in any order."""
        ways = ["/put?key=a", "/rotate", "/login", "/put?key=b&ms=5", f"/bind?as={principal}"]
        for path in random.sample(ways, 3):
            await asyncio.sleep(random.uniform(0, 0.01))
            await self.get(path)

    async def handles(self) -> set[str]:
        """Return the handles of all sessions that any of its cookies opens."""
        cookies = [*self.past, *([self.cookie] if self.cookie else [])]
        found = [await _handle(self._browser, cookie) for cookie in cookies]
        return {handle for handle in found if handle is not None}


async def _revocation(browser: Browser, principal: str) -> tuple[int, int]:
    devices = [_Device(browser) for _ in range(4)]
    await asyncio.gather(*(device.get(f"/bind?as={principal}") for device in devices))
    before = {handle for device in devices for handle in await device.handles()}
    late = [_Device(browser) for _ in range(2)]

    async def log_in(device: _Device) -> None:
        await asyncio.sleep(random.uniform(0, 0.02))
        await device.get("/put?key=cart")
        await device.get(f"/bind?as={principal}")

    async def log_out(device: _Device) -> None:
        await asyncio.sleep(random.uniform(0, 0.02))
        await device.get("/logout")

    async def revoke() -> None:
        await asyncio.sleep(random.uniform(0, 0.03))
        await browser.get(f"/revoke?as={principal}")

    acts: list[Coroutine[Any, Any, None]] = [device.use(principal) for device in devices[:3]]
    acts += [log_out(devices[3]), revoke(), *(log_in(device) for device in late)]
    await asyncio.gather(*acts)
    alive = {handle for device in (*devices, *late) for handle in await device.handles()}
    _, listed, _ = await browser.get(f"/devices?as={principal}")
    return len(alive & before), len(alive - set(listed))


async def forgotten(browser: Browser, rounds: int) -> int:
    """Let the back-end lose the index before it is revoked: how many sessions live on."""
    numbers = iter(range(rounds))
    return sum(await in_rounds(rounds, lambda: _forgotten(browser, f"f{next(numbers)}")))


async def _forgotten(browser: Browser, principal: str) -> int:
    devices = [_Device(browser) for _ in range(3)]
    await asyncio.gather(*(device.get(f"/bind?as={principal}") for device in devices))
    for path in ("/forget", "/revoke"):
        status, _, _ = await browser.get(f"{path}?as={principal}")
        if status != 200:
            raise RuntimeError(f"{path} was answered with {status}")
    # Each read looks at the index here: this is the next touch.
    return sum([len(await device.handles()) for device in devices])


async def indexes_left(browser: Browser, rounds: int, life: float) -> int:
    """Let sessions end in each way, then *life* seconds pass: how many indexes are still there."""
    names = [f"l{number}" for number in range(rounds)]
    ends: list[Callable[[_Device, str], Coroutine[Any, Any, Any]]] = [
        lambda device, _name: device.get("/logout"),
        lambda _device, name: browser.get(f"/revoke?as={name}"),
        lambda device, _name: device.get("/unbind"),
        lambda _device, _name: asyncio.sleep(0),
    ]

    async def end(name: str) -> None:
        devices = [_Device(browser) for _ in range(2)]
        for device in devices:
            await device.get(f"/bind?as={name}")
        for device in devices:
            await random.choice(ends)(device, name)

    waiting = iter(names)
    await in_rounds(rounds, lambda: end(next(waiting)))
    await asyncio.sleep(life)
    return sum([(await browser.get(f"/index?as={name}"))[1] for name in names])


async def _handle(browser: Browser, cookie: str) -> str | None:
    _, handle, _ = await browser.get("/handle", cookie)
    return None if handle is None else str(handle)
