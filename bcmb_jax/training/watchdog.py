# SPDX-License-Identifier: Apache-2.0
"""A thread that ends a process whose training no longer moves, and shows where it stands.

So it does where another process of the run no longer moves: one that is alive, but held up outside
of what the processes compute together, in which all others wait for it.
"""

import collections
import faulthandler
import os
import socket
import sys
import threading
import time
from typing import NoReturn

from bcmb_jax.errors import HUNG
from bcmb_jax.peers import Peers

POLL_SECONDS = 0.5
LEAST_SECONDS, STEPS_LONG = 45.0, 10
"""A step may take this time, and so many times as long as the slowest of those before it; but only
this time after another process has ended its own."""
OTHER_SECONDS = 1800.0
"""Time for a compilation, an evaluation or a save."""
MEASURED = 3
"""Steps that are made before one can be called late."""


class Watchdog:
    """Ends the process when a part of the training loop takes too long; use it with `with`.

    Args:
      seconds: how long a step may take; 0: `STEPS_LONG` times the slowest of the last hundred.
      peers: hear where this process stands, and before the end why it ends.
    """

    def __init__(self, seconds: float, peers: Peers):
        self._seconds, self._peers = seconds, peers
        self._late: dict[int, tuple[int, float]] = {}  # where a process stands, and since when
        self._steps: collections.deque[float] = collections.deque(maxlen=100)
        self._doing, self._bound, self._taken = "the start", OTHER_SECONDS, 0.0
        self._begun = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def step(self, number: int) -> None:
        """Say that a step begins."""
        now = time.monotonic()
        if self._doing.startswith("step"):
            self._steps.append(now - self._begun)
        measured = len(self._steps) >= MEASURED
        bound = self._seconds or max(LEAST_SECONDS, STEPS_LONG * max(self._steps, default=0.0))
        self._begin(f"step {number}", bound if measured else OTHER_SECONDS, step=measured)

    def other(self, doing: str) -> None:
        """Say that something begins which may take long."""
        self._begin(doing, OTHER_SECONDS, step=False)

    def switch(self, phase: str, step: int) -> None:
        """Say that a phase of the training loop begins: a step with its data, or another one."""
        if phase == "data":
            self.step(step)
        elif phase != "step":
            self.other(f"the {phase} after step {step}")

    def _begin(self, doing: str, bound: float, *, step: bool) -> None:
        self._peers.stand(in_step=step)
        self._doing, self._bound = doing, bound
        self._begun, self._taken = time.monotonic(), 0.0

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(POLL_SECONDS):
            now = time.monotonic()
            # A process that was suspended did not run late: its own clock stood still.
            passed, before = min(now - before, 4 * POLL_SECONDS), now
            self._taken += passed
            if self._taken > self._bound:
                waits = sorted(self._peers.behind())
                self._end(
                    f"{self._doing} on {socket.gethostname()} takes more than {self._bound:.0f} s"
                    f"{f', waiting for processes {waits}' if waits else ''}: ended as hung, with "
                    "the stacks above (config.hang_seconds)"
                )
            self._watch_others(passed)

    def _watch_others(self, passed: float) -> None:
        bound, before, self._late = self._seconds or LEAST_SECONDS, self._late, {}
        for process, stands in self._peers.behind().items():
            stood, seconds = before.get(process, (stands, 0.0))
            seconds = seconds + passed if stood == stands else 0.0
            self._late[process] = stands, seconds
            if seconds > bound:
                self._end(
                    f"process {process} on {self._peers.hosts[process]} is alive, but for "
                    f"{bound:.0f} s the others wait for it: ended as hung, with the stacks above "
                    "(config.hang_seconds)"
                )

    def _end(self, why: str) -> NoReturn:
        faulthandler.dump_traceback(sys.__stderr__ or 2, all_threads=True)
        print(f"error: {why}", file=sys.stderr)
        sys.stderr.flush()
        self._peers.leave(HUNG, why)
        os._exit(HUNG)
