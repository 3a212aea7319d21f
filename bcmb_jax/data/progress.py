# SPDX-License-Identifier: Apache-2.0
"""How far a run is: how fast it goes and how long it still takes."""

import datetime
import sys
import time
from collections.abc import Callable
from typing import Protocol, TextIO


class Progress(Protocol):
    """Called after every batch: how much of a stage is done, in documents and (if any) tokens.

    `fraction` is that part of the stage, 0 to 1; None where the input's bytes tell it.
    """

    def __call__(
        self, stage: str, documents: int, tokens: int = 0, fraction: float | None = None
    ) -> None: ...


def silent(stage: str, documents: int, tokens: int = 0, fraction: float | None = None) -> None:
    """Progress that nobody looks at."""


class ProgressLine:
    """A rewritten line on a terminal, else a line every 30 seconds."""

    def __init__(self, fraction_read: Callable[[], float], stream: TextIO = sys.stderr):
        self._fraction_read = fraction_read
        self._stream = stream
        self._interval = 0.2 if stream.isatty() else 30.0
        self._stage = ""
        self._called = self._started = self._written = time.monotonic()

    def __call__(
        self, stage: str, documents: int, tokens: int = 0, fraction: float | None = None
    ) -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._started = stage, self._called
        self._called = now
        if now - self._written < self._interval:
            return
        self._written = now
        seconds = max(now - self._started, 1e-3)
        counts = {"documents": documents, "tokens": tokens} if tokens else {"documents": documents}
        counted = [f"{count:,} {unit}" for unit, count in counts.items()]
        rates = [f"{count / seconds:,.0f} {unit}/s" for unit, count in counts.items()]
        line = f"{stage}: {', '.join(counted + rates)}"
        done = self._fraction_read() if fraction is None else fraction
        if done > 0:
            left = datetime.timedelta(seconds=round(seconds * (1 - done) / done))
            line += f", {done:.1%} done, {left} left"
        if self._stream.isatty():
            self._stream.write(f"\r\x1b[K{line}")
        else:
            self._stream.write(line + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Leaves the terminal's line clean for what is printed next."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()
