# SPDX-License-Identifier: Apache-2.0
"""Signals that ask a run to save and stop, caught from the first line of a command to its last."""

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""SLURM sends such a signal before it takes the machine back (`#SBATCH --signal`)."""


class StopSignal:
    """A flag that SIGTERM, SIGUSR1 or SIGINT raises: save and stop (a second SIGINT kills).

    Attributes:
      requested: whether such a signal has come.
      when: what the message says about the time of the stop.
    """

    def __init__(self) -> None:
        self.requested = False
        self.when = "before the first step"

    def install(self) -> None:
        """Catch the signals, again where a library has put its own handler there."""
        for number in NUMBERS:
            signal.signal(number, self._request)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:  # not by print, which the signal may have interrupted
            os.write(2, f"{signal.Signals(number).name}: stopping {self.when}\n".encode())
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


_caught: list[StopSignal] = []


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Catch the signals inside the block; a block within another one shares its flag.

    Use it in the main thread. The handlers that were there come back at the end.
    """
    if _caught:
        yield _caught[0]
        return
    before = {number: signal.getsignal(number) for number in NUMBERS}
    _caught.append(StopSignal())
    try:
        _caught[0].install()
        yield _caught[0]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _caught.clear()
