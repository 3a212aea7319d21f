# SPDX-License-Identifier: Apache-2.0
"""Training steps made from a packing plan: a Grain source that is read ahead of the training loop.

Grain supplies the reading thread and its buffer. Order, packing and the position that a checkpoint
keeps are ours (see `plan`), so that they are the same on any number of processes.
"""

from bisect import bisect_right
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import grain
import numpy as np

from bcmb_jax.batch import Batch
from bcmb_jax.data.plan import EpochPlan, PackingPlan
from bcmb_jax.data.rows import fill_rows
from bcmb_jax.data.tokenize import SpecialTokens
from bcmb_jax.errors import InputError

READ_OPTIONS = grain.ReadOptions(num_threads=1, prefetch_buffer_size=3)
"""Three steps are assembled before they are asked for. More threads gain nothing: assembly holds
the interpreter's lock."""


class Source(Protocol):
    """Documents with random access, read from another thread; `shards.Shards` is one."""

    name: str
    lengths: np.ndarray

    def read(self, document: int, start: int, stop: int) -> np.ndarray:
        """Return tokens `start:stop` of a document, `[stop - start]` whole numbers."""
        ...


class Position(NamedTuple):
    """The row that training goes on with: all that a checkpoint keeps of the data."""

    epoch: int = 0
    row: int = 0
    """Row of the epoch."""
    row_id: int = 0
    """The row's number since the start of training."""


@dataclass(frozen=True, slots=True)
class StepBatch:
    """This process's rows of a step, and figures of the whole step on all processes.

    No tuple: Grain would walk through all arrays of every step to count their bytes.
    """

    batch: Batch
    tokens: int
    """Non-padding positions."""
    tokens_by_source: dict[str, int]
    packing_efficiency: float
    next_position: Position


class Steps:
    """Random-access source of training steps: element `i` is step `i` counted from `start`.

    An epoch follows the other without end, also inside a step. Elements are read by one thread at
    a time; while an epoch is read, the next one is planned in a thread of its own.

    Args:
      sources: in the order of the plan's lengths.
      plan: assigns documents to rows.
      start: first row of step 0.
      special: ids of `[CLS]`, `[SEP]` and padding.
      rows_per_step: over all processes.
      skip_rows: ranges of row numbers that stay empty.
      share: the rows of each step, from 0, that this process assembles; None is all of them.

    Raises:
      InputError: `rows_per_step` is not positive, or two sources have the same name.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        plan: PackingPlan,
        start: Position,
        *,
        special: SpecialTokens,
        rows_per_step: int,
        skip_rows: Sequence[range] = (),
        share: np.ndarray | None = None,
    ):
        if rows_per_step < 1:
            raise InputError(f"{rows_per_step} rows a step: there must be at least one")
        names = [source.name for source in sources]
        if len(set(names)) < len(names):
            raise InputError(
                f"sources of data need different names, to count their tokens: {', '.join(names)}"
            )
        lengths = [source.lengths for source in sources]
        if len(lengths) != len(plan.lengths) or not all(map(np.array_equal, lengths, plan.lengths)):
            raise ValueError("the plan was made from other lengths than the sources have")
        self.sources = sources
        self.plan = plan
        self.start = start
        self.special = special
        self.rows_per_step = rows_per_step
        self.skip_rows = skip_rows
        self._share = np.arange(rows_per_step) if share is None else share
        self._planner = ThreadPoolExecutor(1, thread_name_prefix="loader")
        self._plans: dict[int, Future[EpochPlan]] = {}
        self._epoch_starts = [-start.row]
        """First row of each epoch from `start.epoch` on, counted from `start`."""

    def read_ahead(self) -> Generator[StepBatch]:
        """Yield the steps in their order, assembled ahead by a thread of Grain's; only once.

        Reading starts with the first `next`, which also raises what goes wrong in a thread. Closing
        or dropping the iterator ends the threads.

        Raises:
          InputError: the start's epoch has no such row: these are not the checkpoint's data.
        """
        steps = iter(grain.MapDataset.source(self).to_iter_dataset(READ_OPTIONS))
        try:
            yield from steps
        finally:
            steps.close()
            self._planner.shutdown(cancel_futures=True)

    def __len__(self) -> int:
        return 2**62  # without end

    def __getitem__(self, step: int) -> StepBatch:
        begin = step * self.rows_per_step
        rows: list[tuple[EpochPlan, int]] = []
        tokens = np.zeros(len(self.sources), np.int64)
        number = bisect_right(self._epoch_starts, begin) - 1
        while len(rows) < self.rows_per_step:
            epoch = self.start.epoch + number
            plan = self._epoch_plan(epoch)
            if number == 0 and self.start.row > plan.rows:
                raise InputError(
                    f"no row {self.start.row} in epoch {epoch}, which has {plan.rows}: these are "
                    "not the data, weights or lengths that the position was saved with"
                )
            first = min(plan.rows, begin + len(rows) - self._epoch_starts[number])
            last = min(plan.rows, first + self.rows_per_step - len(rows))
            rows += [(plan, row) for row in range(first, last)]
            tokens += plan.count_tokens(first, last)
            if last == plan.rows:
                epoch, last, number = epoch + 1, 0, number + 1
                if number == len(self._epoch_starts):
                    self._epoch_starts.append(self._epoch_starts[-1] + plan.rows)
        row_ids = self.start.row_id + np.arange(begin, begin + self.rows_per_step, dtype=np.int32)
        empty = {i for r in self.skip_rows for i, number in enumerate(row_ids) if int(number) in r}
        for i in empty:
            plan, row = rows[i]
            tokens -= plan.count_tokens(row, row + 1)
        pieces = [
            [self.sources[s].read(document, a, a + length) for s, document, a, length in row]
            for row in (() if i in empty else rows[i][0].pieces(rows[i][1]) for i in self._share)
        ]
        batch = fill_rows(pieces, self.plan.row_length, self.special)
        total = int(tokens.sum())
        return StepBatch(
            batch._replace(row_ids=row_ids[self._share]),
            tokens=total,
            tokens_by_source={
                source.name: int(n) for source, n in zip(self.sources, tokens, strict=True)
            },
            packing_efficiency=total / (self.rows_per_step * self.plan.row_length),
            next_position=Position(epoch, last, int(row_ids[-1]) + 1),
        )

    def _epoch_plan(self, epoch: int) -> EpochPlan:
        """Return the plan of an epoch, and have the next one made in the background."""
        self._plans = {
            e: self._plans.get(e) or self._planner.submit(self.plan.epoch, e)
            for e in (epoch, epoch + 1)
        }
        return self._plans[epoch].result()
