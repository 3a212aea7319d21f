# SPDX-License-Identifier: Apache-2.0
"""Timing two or more sides against each other on a machine that may not be quiet."""

import sys
import time
from collections.abc import Callable, Mapping

Times = list[float]


def race(sides: Mapping[str, Callable[[], object]], rounds: int, burst: int) -> dict[str, Times]:
    """Seconds of every timed call, by side.

    The sides take turns in bursts: one call that is not counted (caches, threads and memory come
    back to this side), then `burst` counted ones; `rounds` times. A drift of the machine's speed so
    meets all sides alike.

    Args:
      sides: functions that return only when their work is done.
      burst: 0 for calls of minutes: one call a turn, and that one counts.
    """
    times: dict[str, Times] = {name: [] for name in sides}
    for turn in range(rounds):
        for name, run in sides.items():
            progress(f"round {turn + 1} of {rounds}: {name}")
            if burst:
                run()
            for _ in range(burst or 1):
                start = time.perf_counter()
                run()
                times[name].append(time.perf_counter() - start)
    progress("")
    return times


def progress(text: str) -> None:
    """A line on a terminal that the next one replaces."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
