"""Any number of hostile inputs: ``python -m tests.fuzz 20000 --only records``."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
import warnings

from hypothesis.errors import HypothesisWarning

from tests.fuzz.site import close
from tests.fuzz.target import Target, run
from tests.fuzz.targets import TARGETS

_STEP = 1000


def fuzz(target: Target, count: int, first: int) -> bool:
    """Check *count* inputs of *target*, tell how far it is, and return whether all is well."""
    began = time.monotonic()

    def tell(done: int) -> None:
        if done % _STEP == 0:
            a_minute = 60 * done / (time.monotonic() - began)
            print(f"{target.name}: {done:,} of {count:,} ({a_minute:,.0f} a minute)", flush=True)

    try:
        done = run(target, count, first=first, told=tell)
    except Exception:  # noqa: BLE001 - whatever it is, it is a fault that an input shows
        traceback.print_exc(file=sys.stdout)
        print(f"{target.name}: a fault (--only {target.name} --seed {first})", flush=True)
        return False
    print(
        f"{target.name}: {done:,} inputs, no fault ({time.monotonic() - began:.0f} s)", flush=True
    )
    return True


def main() -> int:
    """Print what was found; fail where anything was."""
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", nargs="?", type=int, default=3000, help="inputs of each target")
    parser.add_argument("--only", action="append", choices=names, help="this target")
    parser.add_argument("--seed", type=int, default=0, help="other inputs")
    given = parser.parse_args()
    logging.getLogger("aiosess").propagate = False
    logging.getLogger("aiosess").addHandler(logging.NullHandler())
    # An input may be long.
    warnings.simplefilter("ignore", HypothesisWarning)
    chosen = [target for target in TARGETS if target.name in (given.only or names)]
    try:
        are_well = [fuzz(target, given.count, given.seed) for target in chosen]
    finally:
        close()
    return 0 if all(are_well) else 1


if __name__ == "__main__":
    sys.exit(main())
