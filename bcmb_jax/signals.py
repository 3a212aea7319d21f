# SPDX-License-Identifier: Apache-2.0
"""Signals that ask a run to save and stop, caught from the first line of a command to its last."""

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

from bcmb_jax.errors import StorageError

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

    def _request(self, number: int, frame: FrameType | None) -> None:
        if not self.requested:  # not by print, which the signal may have interrupted
            os.write(2, f"{signal.Signals(number).name}: stopping {self.when}\n".encode())
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


_caught: list[StopSignal] = []


def catch_stop_signals() -> StopSignal:
    """Catch the signals from now on, for every `stop_signals` of this process."""
    _caught.append(StopSignal())
    for number in NUMBERS:
        signal.signal(number, _caught[0]._request)
    return _caught[0]


@contextlib.contextmanager
def stop_signals() -> Iterator[StopSignal]:
    """Catch the signals inside the block, unless they are caught already; then share that flag.

    Use it in the main thread. The handlers that were there come back at the end.
    """
    if _caught:
        yield _caught[0]
        return
    before = {number: signal.getsignal(number) for number in NUMBERS}
    try:
        yield catch_stop_signals()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _caught.clear()


def end_process(status: int) -> NoReturn:
    """End the process with a status that no signal changes any more.

    Python puts back the system's handlers, which kill, before it has ended. And it waits for all
    threads: after a disk has failed, for minutes for those of Orbax that still expect it.
    """
    for number in NUMBERS:
        signal.signal(number, signal.SIG_IGN)
    if status == StorageError.exit_status:
        os._exit(status)
    sys.exit(status)
