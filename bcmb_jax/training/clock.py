# SPDX-License-Identifier: Apache-2.0
"""The clock of an attempt, which writes to `goodput.jsonl` what each second of it went to.

An attempt is one process of a run, from its start to its end or kill. Each line of the ledger holds
all seconds of an attempt so far: the last line counts, and one that is cut off costs nothing.
"""

import contextlib
import json
import os
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import jax

from bcmb_jax.private import opener
from bcmb_jax.training.goodput import PHASES, Entry, tell

LEAST_SECONDS, SHARE = 0.1, 1 / 200
"""Time between two lines: this share of the attempt's age, which is all that a kill can hide."""


class RunClock:
    """The clock of one attempt, which books each second on a phase; use it with `with`.

    Args:
      file: the ledger; only the first process writes it.
      began: seconds since 1970 at which the attempt began; None is now.
    """

    def __init__(self, file: Path, began: float | None = None):
        self._file = file if jax.process_index() == 0 else None
        self._offset = time.time() - time.monotonic()  # the system's clock may be set meanwhile
        self._began = self._now() if began is None else began
        self._phase, self._since, self._before = "start", self._began, 0.0
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._first: int | None = None
        self._step = self._saves = 0
        self._compiled: list[tuple[float, float]] = []
        self._waiter, self._device_free = ThreadPoolExecutor(1), Future[float]()
        self._device_free.set_result(0.0)
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._keep_writing, name="run clock", daemon=True)

    def __enter__(self) -> "RunClock":
        if self._file:
            jax.monitoring.register_event_duration_secs_listener(self._on_event)
            with contextlib.suppress(OSError):
                open(self._file, "a", opener=opener).close()
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._waiter.shutdown(wait=False)
        if not self._file:
            return
        self._closing.set()
        self._thread.join()
        jax.monitoring.unregister_event_duration_listener(self._on_event)
        with contextlib.suppress(OSError):  # a run does not fail for its ledger
            self._write()
            if kind is None:
                tell(self._file)
                self._write(ended=True)

    def switch(self, phase: str, step: int) -> float:
        """Begin a phase; return the seconds that were booked on the one before.

        Args:
          phase: one of `PHASES`.
          step: the step being made, or the last one made.
        """
        with self._lock:
            self._book()
            spent = self._seconds[self._phase] - self._before
        if self._phase == "save":  # from here a later attempt may go on
            with contextlib.suppress(OSError):
                self._write()
        with self._lock:
            self._phase, self._before, self._step = phase, self._seconds[phase], step
            self._saves += phase == "save"
            if phase == "data" and self._first is None:
                self._first = step - 1
        return spent

    def dispatched(self, result: jax.Array) -> None:
        """Take note of a step whose `result` the devices are computing."""

        def wait() -> float:
            with contextlib.suppress(Exception):  # the training loop will meet it too
                result.block_until_ready()
            return self._now()

        self._device_free = self._waiter.submit(wait)

    def _now(self) -> float:
        return time.monotonic() + self._offset

    def _book(self) -> None:
        now = self._now()
        spent = now - self._since
        if self._phase == "data":  # as long as the devices have a step to make, no data are missed
            free = self._device_free.result() if self._device_free.done() else now
            busy = min(max(free - self._since, 0.0), spent)
            self._seconds["step"] += busy
            spent -= busy
        self._seconds[self._phase] += spent
        self._since = now

    def _on_event(self, event: str, duration_secs: float, **_: str | int) -> None:
        """Book a compilation that has ended apart from the phase that it fell in."""
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main or not event.startswith("/jax/core/compile/"):
            return
        with self._lock:
            self._book()
            begun = self._since - duration_secs
            own = duration_secs - sum(x for ended, x in self._compiled if ended > begun)
            self._compiled.append((self._since, own))  # a trace holds those of inner functions
            self._seconds["compile"] += own
            self._seconds[self._phase] -= own

    def _keep_writing(self) -> None:
        while not self._closing.wait(max(LEAST_SECONDS, SHARE * (self._now() - self._began))):
            with contextlib.suppress(OSError):
                self._write()

    def _write(self, ended: bool = False) -> None:
        if not self._file:
            return
        with self._writing:  # in the order of time; `switch` does not wait for the disk
            with self._lock:
                self._book()
                seconds = {name: round(x, 4) for name, x in self._seconds.items()}
                entry = Entry(
                    self._began, self._since, self._first, self._step, self._saves, ended, seconds
                )
            # Opened so, it is never made anew where it has gone.
            with open(self._file, "r+", encoding="utf-8", opener=opener) as out:
                out.seek(0, os.SEEK_END)
                out.write(json.dumps(entry._asdict()) + "\n")


def process_start() -> float:
    """Return the time at which this process began, in seconds since 1970."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):  # no Linux; imports keep one core busy
        age = time.process_time()
    return time.time() - age
