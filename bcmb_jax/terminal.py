# SPDX-License-Identifier: Apache-2.0
"""The display of a command at work: one progress line, and lines that stay."""

import io
import shlex
import sys
import time
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

TERMINAL_SECONDS, LOG_SECONDS = 0.2, 15.0
"""Least time between two updates of the line, on a terminal and in a log file."""


def say_next(what: str, *paths: Path) -> None:
    """Say what to do next, as the last line of a command: on stderr, because it is no result.

    Args:
      what: a command or a sentence, with {} for each path.
    """
    print("next:", what.format(*(shlex.quote(str(x)) for x in paths)), file=sys.stderr)


class Display:
    """A progress line that rewrites itself on a terminal; plain lines, seldom, in a batch log.

    Args:
      silent: show nothing, as every process but the first does.
      stream: standard error, unless given.
    """

    def __init__(self, *, silent: bool = False, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._silent, self._live = silent, self._stream.isatty()
        self._bar: tqdm | None = None
        self._last = -LOG_SECONDS  # the first line is shown at once

    def progress(self, done: float | None, text: str) -> None:
        """Show `text`, and how much of the work is done (0 to 1) with the time that is left.

        Args:
          done: None where the end is not known. A smaller number than before starts a new stage.
        """
        if self._silent:
            return
        bar = self._stage(done)
        bar.n = min(done or 0.0, 1.0)
        bar.bar_format = _format(text, bar, self._live)
        now = time.monotonic()
        if now - self._last < (TERMINAL_SECONDS if self._live else LOG_SECONDS):
            return
        self._last = now
        if self._live:
            bar.refresh()
        else:
            self._stream.write(f"{bar}\n")
            self._stream.flush()

    def say(self, text: str) -> None:
        """Write a line that stays."""
        if self._silent:
            return
        if self._live and self._bar:
            self._bar.clear()
        self._stream.write(text + "\n")
        self._stream.flush()

    def close(self) -> None:
        """Take the progress line away, so that what is printed next starts on a clean line."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _stage(self, done: float | None) -> tqdm:
        if self._bar is None or (done or 0.0) < self._bar.n:
            self.close()
            self._bar = tqdm(
                total=1.0,
                initial=done or 0.0,
                file=self._stream if self._live else io.StringIO(),  # a log gets whole lines
                leave=False,
                dynamic_ncols=True,
                delay=1e-9,  # the first line is ours, not tqdm's
            )
        return self._bar


def _format(text: str, bar: tqdm, live: bool) -> str:
    text = text.replace("{", "{{").replace("}", "}}")
    if not bar.n:
        return text
    left = ", {remaining} left" if bar.initial < bar.n < 1 else ""
    return ("{bar:20} " if live else "") + "{percentage:5.1f}%  " + text + left
