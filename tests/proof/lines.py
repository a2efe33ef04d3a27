"""One function a line of the proof: drives the servers, returns what it counted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import aiohttp
from aiohttp import WSCloseCode


class Browser:
    """Sends requests to the processes in turn, with the cookies that it is told to send."""

    def __init__(self, http: aiohttp.ClientSession, ports: Sequence[int]) -> None:
        self._http = http
        self._ports = ports

    async def get(self, path: str, cookie: str | None = None) -> tuple[int, Any, str | None]:
        """Return the status, the JSON answer, and the cookie that was set (``""``: cleared)."""
        url = f"http://127.0.0.1:{random.choice(self._ports)}{path}"
        headers = {} if cookie is None else {"Cookie": cookie}
        async with self._http.get(url, headers=headers) as response:
            is_json = response.content_type == "application/json"
            answer = await response.json() if is_json else await response.read()
            return response.status, answer, _set_cookie(response)

    async def socket(self, cookie: str) -> aiohttp.ClientWebSocketResponse | None:
        """Return a socket, ``None`` where there is no session for it any more."""
        url = f"http://127.0.0.1:{random.choice(self._ports)}/socket"
        try:
            return await self._http.ws_connect(url, headers={"Cookie": cookie})
        except aiohttp.WSServerHandshakeError:
            return None

    async def start(self, path: str = "/put?key=base") -> str:
        """Return the cookie of a new session."""
        _, _, cookie = await self.get(path)
        if not cookie:
            raise RuntimeError(f"{path} set no cookie")
        return cookie


async def keys_lost(browser: Browser, requests: int) -> int:
    """Each of many requests at once sets a key of its own: how many keys are missing after."""
    cookie = await browser.start()
    await asyncio.gather(*(browser.get(f"/put?key=k{n}", cookie) for n in range(requests)))
    _, data, _ = await browser.get("/show", cookie)
    return sum(f"k{n}" not in data for n in range(requests))


async def parts_lost(browser: Browser, requests: int) -> tuple[int, int]:
    """Each of many requests at once changes the inside of one value.

    Return how many nested keys are missing after, and how many items of a list are not there once.
    """
    cookie = await browser.start()
    await asyncio.gather(*(browser.get(f"/buy?key=k{n}", cookie) for n in range(requests)))
    _, data, _ = await browser.get("/show", cookie)
    cart = data["cart"]
    bought = [f"k{n}" for n in range(requests)]
    return sum(key not in cart["items"] for key in bought), sum(
        cart["log"].count(key) != 1 for key in bought
    )


async def messages_lost(browser: Browser, requests: int) -> int:
    """Many requests at once leave a message each, others take all: how many nobody ever got."""
    cookie = await browser.start()
    taken: set[str] = set()

    async def take() -> None:
        _, messages, _ = await browser.get("/tell", cookie)
        taken.update(messages)

    async def say(number: int) -> None:
        await browser.get(f"/say?key=m{number}", cookie)
        if number % 4 == 0:
            await take()

    await asyncio.gather(*(say(number) for number in range(requests)))
    await take()
    return sum(f"m{number}" not in taken for number in range(requests))


async def increments_lost(browser: Browser, requests: int) -> int:
    """Many atomic increments at once: how many are missing after."""
    cookie = await browser.start()
    await asyncio.gather(*(browser.get("/add", cookie) for _ in range(requests)))
    _, data, _ = await browser.get("/show", cookie)
    return requests - int(data["count"])


async def logout_races(browser: Browser, rounds: int) -> tuple[int, int]:
    """A slow request against a logout: sessions that came back, cookies that were re-issued."""
    outcomes = await in_rounds(rounds, lambda: _logout_race(browser))
    return sum(revived for revived, _ in outcomes), sum(reissued for _, reissued in outcomes)


async def _logout_race(browser: Browser) -> tuple[bool, bool]:
    cookie = await browser.start()
    slow = asyncio.ensure_future(browser.get("/put?key=late&ms=20", cookie))
    await asyncio.sleep(random.uniform(0, 0.03))
    _, ended, _ = await browser.get("/logout", cookie)
    _, answer, set_cookie = await slow
    _, data, _ = await browser.get("/show", cookie)
    # A slow request that found the session gone may begin a new one, under an id of its own.
    came_after = answer["at"] > ended["at"]
    return bool(data), came_after and set_cookie == cookie


async def rotations(browser: Browser, rounds: int, in_flight: int = 8) -> tuple[int, int]:
    """Requests in flight while the id is rotated: how many were logged out, changes lost."""
    outcomes = await in_rounds(rounds, lambda: _rotation(browser, in_flight))
    return sum(out for out, _ in outcomes), sum(lost for _, lost in outcomes)


async def _rotation(browser: Browser, in_flight: int) -> tuple[int, int]:
    cookie = await browser.start()

    async def request(number: int) -> bool:
        await asyncio.sleep(random.uniform(0, 0.02))
        _, answer, _ = await browser.get(f"/put?key=k{number}&ms=10", cookie)
        return isinstance(answer, dict) and bool(answer["known"])

    others = [asyncio.ensure_future(request(number)) for number in range(in_flight)]
    await asyncio.sleep(random.uniform(0, 0.02))
    _, _, rotated = await browser.get("/rotate", cookie)
    known = await asyncio.gather(*others)
    _, data, _ = await browser.get("/show", rotated)
    wanted = ["base", "rotated", *(f"k{number}" for number in range(in_flight))]
    return known.count(False), sum(key not in data for key in wanted)


async def logins(browser: Browser, rounds: int) -> tuple[int, int, int]:
    """A login while requests are under way, and somebody else who has the id from before.

    Return how often that one saw data of the login, how often the session was changed or destroyed
    by way of the old id, and how many requests under way overwrote the login's cookie.
    """
    outcomes = await in_rounds(rounds, lambda: _login(browser))
    seen, changed, overwritten = zip(*outcomes, strict=True)
    return sum(seen), sum(changed), sum(overwritten)


async def _login(browser: Browser) -> tuple[bool, bool, int]:
    cookie = await browser.start()
    slow = [
        asyncio.ensure_future(browser.get(f"/put?key=slow{number}&ms=40", cookie))
        for number in range(2)
    ]
    await asyncio.sleep(random.uniform(0, 0.02))
    _, login, logged_in = await browser.get("/login", cookie)
    began = await browser.get("/show", logged_in)
    _, view, _ = await browser.get("/show", cookie)
    await browser.get("/put?key=planted", cookie)
    await browser.get("/logout", cookie)
    answers = await asyncio.gather(*slow)
    _, data, _ = await browser.get("/show", logged_in)
    is_changed = "user" not in began[1] or "user" not in data or "planted" in data
    # Before the login there was no cookie of it yet. On a busy machine a slow request may be late:
    # it finds the old id past its grace then, and begins a session of its own.
    under_way = [
        set_cookie
        for _, answer, set_cookie in answers
        if answer["at"] > login["at"] and (answer["known"] or answer["opened"] <= login["at"])
    ]
    return "user" in view, is_changed, sum(each is not None for each in under_way)


async def sockets_left(browser: Browser, rounds: int, patience: float) -> tuple[int, int]:
    """Sockets of one session on several processes, and a logout on one of them.

    Some are opened while the logout is under way, and sometimes the id was rotated before. Return
    how many were open so many seconds after it, and how many there were.
    """
    outcomes = await in_rounds(rounds, lambda: _sockets(browser, patience))
    return sum(left for left, _ in outcomes), sum(opened for _, opened in outcomes)


async def _sockets(browser: Browser, patience: float) -> tuple[int, int]:
    cookie = await browser.start()
    before = [await browser.socket(cookie) for _ in range(4)]
    rotated = None
    if random.random() < 0.5:
        _, _, rotated = await browser.get("/rotate", cookie)
    opening = asyncio.gather(*(browser.socket(rotated or cookie) for _ in range(4)))
    await asyncio.sleep(random.uniform(0, 0.01))
    await browser.get("/logout", rotated or cookie)
    meanwhile = await opening
    sockets = [each for each in (*before, *meanwhile) if each is not None]
    closed = await asyncio.gather(*(_is_closed(each, patience) for each in sockets))
    return closed.count(False), len(sockets)


async def _is_closed(ws: aiohttp.ClientWebSocketResponse, patience: float) -> bool:
    try:
        message = await ws.receive(timeout=patience)
    except TimeoutError:
        return False
    finally:
        await ws.close()
    return message.type is aiohttp.WSMsgType.CLOSE and message.data == WSCloseCode.POLICY_VIOLATION


async def ids_shared(browser: Browser, requests: int) -> tuple[int, int]:
    """Many sessions created with ids that repeat: how many share an id, how many there are."""
    owners: list[str] = []

    async def create() -> None:
        status, _, cookie = await browser.get("/put?key=base")
        if status == 200 and cookie:
            owners.append(cookie)

    await in_rounds(requests, create, at_once=64)
    return len(owners) - len(set(owners)), len(owners)


async def in_rounds(count: int, once: Any, at_once: int = 8) -> list[Any]:
    """Return what *once* returned each of *count* times, some of them at once."""
    limit = asyncio.Semaphore(at_once)

    async def limited() -> Any:
        async with limit:
            return await once()

    return await asyncio.gather(*(limited() for _ in range(count)))


def _set_cookie(response: aiohttp.ClientResponse) -> str | None:
    header = response.headers.get("Set-Cookie")
    if header is None:
        return None
    pair = header.partition(";")[0]
    return "" if pair.endswith("=") else pair
