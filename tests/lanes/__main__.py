"""Any number of random cases on both lanes: ``python -m tests.lanes 3000``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from tests.lanes.cases import Case, case_of
from tests.lanes.compare import Difference, difference, smallest
from tests.lanes.lanes import FAST, WHOLE
from tests.lanes.runner import observed

_MOST_SHOWN = 10
_STEP = 500


async def _difference(case: Case) -> Difference | None:
    return await difference(case, WHOLE, FAST)


async def compare(count: int, first: int) -> int:
    """Compare *count* cases from the seed *first* on; return how many differ."""
    started = time.monotonic()
    differing = 0
    for number in range(1, count + 1):
        found = await _difference(case_of(first + number - 1))
        if found is not None:
            differing += 1
            if differing <= _MOST_SHOWN:
                print(await smallest(found, _difference), end="\n\n", flush=True)
        if number % _STEP == 0 or number == count:
            a_minute = 60 * number / (time.monotonic() - started)
            print(
                f"{number} of {count} cases, {differing} differ ({a_minute:,.0f} cases a minute)",
                flush=True,
            )
    return differing


async def show(case: Case) -> int:
    """Print what is seen of *case*, and what differs; return whether anything does."""
    print("\n".join(await observed(case, WHOLE)), end="\n\n")
    found = await _difference(case)
    print("The lanes agree." if found is None else found)
    return found is not None


def main() -> int:
    """Print what differs; fail where anything does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=3000, help="how many cases")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="show this case alone")
    parser.add_argument("--case", type=Case.from_json, metavar="JSON", help="show this case alone")
    given = parser.parse_args()
    if given.seed is not None:
        return asyncio.run(show(case_of(given.seed)))
    if given.case is not None:
        return asyncio.run(show(given.case))
    return int(asyncio.run(compare(given.count, given.first)) > 0)


if __name__ == "__main__":
    sys.exit(main())
